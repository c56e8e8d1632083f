// HeaderModel: the names that an image's header has of other files — its backing file, its data
// file — and whether the data file is a raw image, now and after a power cut: a change that was on
// its way has happened or not; one that has ended counts.
//
// A file has many names: "./" in front of the last part of a path makes a longer one of it.
#pragma once

#include <optional>
#include <string>

#include "base/options.h"
#include "block/driver.h"
#include "io/task.h"
#include "workload/image_setup.h"
#include "workload/random.h"

namespace platter::workload {

class HeaderModel {
 public:
  // `backing`, `data`: as the image was created with; not looked at where it has none.
  HeaderModel(const ImageSetup& setup, std::string backing, std::string data);

  bool names_files() const { return !now_.backing.empty() || !now_.data.empty(); }
  bool data_is_raw() const { return now_.raw; }
  // Gives a file another name, or lets the data file be a raw image no longer. `amendable`: what
  // the driver's amend takes.
  io::Task<Result<void>> change(block::Driver& driver, const base::OptionSchema& amendable,
                                Random& random);
  // The image says what it may say; that is from now on what it says.
  Result<void> settle(const block::Driver& driver);

 private:
  struct Names {
    std::string backing;
    std::string data;
    bool raw = false;
    bool operator==(const Names&) const = default;
    std::string describe() const;
  };
  Names draw(Random& random) const;

  uint64_t longest_;  // of both names together, so that the old and the new header have room
  std::string backing_format_;
  Names first_, now_;
  std::optional<Names> next_;
};

}  // namespace platter::workload
