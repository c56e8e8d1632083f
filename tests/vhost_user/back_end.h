// A back-end in a process of its own: ours or a peer, by name.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "platter/error.h"

namespace platter::front_end {

struct BackEndOptions {
  std::string image;
  std::string format = "qcow2";
  // A node to serve instead of an image: `driver=null-co,size=1M`.
  std::string node = {};
  std::string socket;
  unsigned queues = 1;
  // More words for `platter serve`; all of those of `platter daemon`.
  std::vector<std::string> arguments = {};
  int errors = -1;  // where its standard error goes; -1: where ours does
};

// The command that serves an image. EINVAL: nobody is called so.
Result<std::vector<std::string>> back_end_command(const std::string& name,
                                                  const BackEndOptions& options);

class BackEnd {
 public:
  // Returns when it listens.
  static Result<BackEnd> start(const std::string& name, const BackEndOptions& options);

  BackEnd(BackEnd&& other) noexcept;
  BackEnd& operator=(BackEnd&&) = delete;
  // Kills it.
  ~BackEnd();

  // As a person does it; its exit status, or minus the signal that it died of. It is killed where
  // it does not end.
  int stop();
  // As the kernel does it to one that takes too much memory.
  void kill();
  bool running();
  void signal(int number);

 private:
  explicit BackEnd(pid_t process) : process_(process) {}

  pid_t process_;
};

}  // namespace platter::front_end
