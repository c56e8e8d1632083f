// What a randomised run needs from outside: a scratch directory of its own, and other programs to
// ask.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "platter/error.h"
#include "support/scratch_directory.h"

namespace platter::workload {

// In memory where /dev/shm is writable, elsewhere in the system's place for temporary files, unless
// PLATTER_TEST_DIR says where.
class ScratchDirectory : public support::ScratchDirectory {
 public:
  ScratchDirectory();
};

struct ProgramResult {
  int exit_code;       // 128 + N where signal N ended it
  std::string output;  // stdout and stderr
};

// Runs arguments[0], found by PATH, and waits for it.
ProgramResult run_program(const std::vector<std::string>& arguments);
bool have_program(const std::string& name);

Result<void> write_file(const std::string& path, std::span<const uint8_t> bytes);

}  // namespace platter::workload
