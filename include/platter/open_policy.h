// OpenPolicy: what an image may make us open, and how much it may cost. There is no open without
// one.
//
// An image is data from somewhere else. Its header may name other files (a backing file, later data
// files and extents) and ask for tables of any size. A policy says which of those names are
// followed. What the caller names directly (a path, an option) is the caller's own
// choice and is not judged here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace platter {

struct OpenPolicy {
  enum class Reach {
    kNothing,       // no name in an image is followed
    kOwnDirectory,  // files in the naming image's directory or below it; no symbolic link out of it
    kAnything,      // any file and protocol, json: descriptions included: what QEMU does
  };

  Reach reach = Reach::kNothing;
  // Directories that images may name files in, besides what `reach` gives.
  std::vector<std::string> allowed_directories;
  // Images in one backing chain, the first one included.
  unsigned max_chain_depth = 200;
  // Bytes of tables that one image may make us hold in memory outside its caches (its L1 and
  // refcount tables), and of the bits of its bitmaps that it may make us read.
  uint64_t max_metadata_bytes = uint64_t{64} << 20;

  static OpenPolicy deny() { return {}; }
  static OpenPolicy own_directory() {
    return {.reach = Reach::kOwnDirectory, .allowed_directories = {}};
  }
  static OpenPolicy anything() { return {.reach = Reach::kAnything, .allowed_directories = {}}; }
};

}  // namespace platter
