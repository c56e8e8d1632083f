// ImageSetup: which image a randomised run works on — format, creation options, backing file,
// runtime options — drawn from a seed or written by hand on a command line.
#pragma once

#include <cstdint>
#include <string>

#include "base/options.h"
#include "block/graph.h"
#include "block/secret_source.h"
#include "workload/random.h"

namespace platter::workload {

enum class BackingKind { kNone, kRaw, kQcow2 };
enum class DataFile { kNone, kExternal, kRaw };

struct ImageSetup {
  std::string format = "qcow2";
  uint64_t size = 0;
  uint32_t cluster_size = 65536;
  std::string compat = "1.1";
  unsigned refcount_bits = 16;
  bool lazy_refcounts = false;
  bool extended_l2 = false;
  DataFile data_file = DataFile::kNone;
  std::string preallocation = "off";
  BackingKind backing = BackingKind::kNone;
  uint64_t backing_size = 0;
  bool small_caches = false;  // the smallest table caches that the format accepts
  bool cleans_caches = true;  // cache-clean-interval: in a simulation its time comes often
  bool unmap = false;         // discard=unmap
  std::string detect_zeroes = "off";
  bool direct = false;            // O_DIRECT
  bool bitmaps = false;           // the run makes dirty bitmaps in it
  std::string encryption = {};    // of qcow2: "luks", "aes"; empty: none
  std::string secret = "secret";  // the id of one that opens it

  bool is_qcow2() const { return format == "qcow2"; }
  bool takes_compressed() const { return is_qcow2() && encryption.empty() && !has_data_file(); }
  // "qcow2 size=1048576 cluster_size=512 ...": what a person needs to make the same image.
  std::string describe() const;
  bool has_data_file() const { return data_file != DataFile::kNone; }
  base::Options create_options(const std::string& backing_path,
                               const std::string& data_path = {}) const;
  block::OpenRequest open_request(const std::string& path) const;
  // How qemu-img is told to open it, with --object and --image-opts.
  std::string qemu_image_options(const std::string& path) const;
};

struct DrawLimits {
  uint64_t max_size = uint64_t{16} << 20;
  uint32_t max_cluster_size = uint32_t{2} << 20;
  bool raw = true;
  bool qcow2 = true;
  bool direct = true;
  bool preallocation = true;
};

// The passphrases of encrypted images: ids are "secret", "secret1", "secret2"...
class FixedSecrets final : public block::SecretSource {
 public:
  static constexpr std::string_view kPassphrase = "open sesame";
  // What --object tells other programs of one.
  static std::string qemu_object(const std::string& id) {
    return "secret,id=" + id + ",data=" + passphrase(id);
  }
  Result<base::SecretBytes> secret(std::string_view id) const override {
    return base::SecretBytes::copy_of(passphrase(id));
  }

 private:
  static std::string passphrase(std::string_view id) {
    return std::string(kPassphrase) + std::string(id.substr(kFirstId.size()));
  }
  static constexpr std::string_view kFirstId = "secret";
};

// The cluster size and the encryption follow from `index` (every thirteenth and every seventh run
// has the same one), the rest is chance.
ImageSetup draw_setup(Random& random, uint64_t index, const DrawLimits& limits);

}  // namespace platter::workload
