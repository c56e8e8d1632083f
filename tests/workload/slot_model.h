// SlotModel: which secrets open an encrypted image, now and after a power cut. A secret whose slot
// was being filled or erased opens it or not; every other one does what it did: nobody is locked
// out, and nobody gets in again.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>

#include "base/options.h"
#include "block/driver.h"
#include "io/task.h"
#include "workload/random.h"

namespace platter::workload {

class SlotModel {
 public:
  // One that opens the image whatever becomes of the change that is on its way.
  const std::string& sure() const { return *open_.begin(); }

  // Adds a secret, or erases one. `amendable`: what the driver's amend takes.
  io::Task<Result<void>> change(block::Driver& driver, const base::OptionSchema& amendable,
                                Random& random);
  // `opens` tells whether a secret opens the image, which is not open. What it finds is from now on
  // what counts.
  io::Task<Result<void>> settle(std::function<io::Task<Result<bool>>(std::string)> opens);

 private:
  std::set<std::string> open_ = {"secret"};
  std::set<std::string> erased_;
  std::optional<std::string> unsure_;
  unsigned next_ = 1;
};

}  // namespace platter::workload
