#include "format/qcow2/info.h"

#include "crypto/luks_options.h"

namespace platter::format::qcow2 {

using base::Json;

namespace {

Json describe_bitmaps(std::span<const Bitmap> bitmaps) {
  Json list = Json::array();
  for (const Bitmap& bitmap : bitmaps) {
    Json flags = Json::array();
    if (bitmap.flags & kBitmapInUse) flags.append("in-use");
    if (bitmap.flags & kBitmapAuto) flags.append("auto");
    Json item = Json::object();
    item.add("flags", std::move(flags));
    item.add("name", bitmap.name);
    item.add("granularity", uint64_t{1} << bitmap.granularity_bits);
    list.append(std::move(item));
  }
  return list;
}

Json describe_encryption(CryptMethod method, const crypto::LuksHeader* luks) {
  Json encryption = Json::object();
  if (luks != nullptr) {
    crypto::describe_volume(*luks, "luks", encryption);
  } else {
    encryption.add("format", method == CryptMethod::kAes ? "aes" : "luks");
  }
  return encryption;
}

}  // namespace

block::SnapshotInfo describe_snapshot(const Snapshot& snapshot) {
  block::SnapshotInfo info;
  info.id = snapshot.id;
  info.name = snapshot.name;
  info.vm_state_size = snapshot.vm_state_size;
  info.date_seconds = snapshot.date_seconds;
  info.date_nanoseconds = snapshot.date_nanoseconds;
  info.vm_clock_nanoseconds = snapshot.vm_clock_nanoseconds;
  if (snapshot.icount != UINT64_MAX) info.icount = snapshot.icount;
  return info;
}

block::DriverInfo describe(const Header& header, std::span<const Bitmap> bitmaps,
                           std::span<const Snapshot> snapshots, const crypto::LuksHeader* luks) {
  const bool version3 = header.version >= 3;
  Json data = Json::object();
  data.add("compat", version3 ? "1.1" : "0.10");
  data.add("compression-type", header.compression_type == CompressionType::kZstd ? "zstd" : "zlib");
  if (version3) data.add("lazy-refcounts", header.has(kLazyRefcounts));
  if (version3 && !bitmaps.empty()) data.add("bitmaps", describe_bitmaps(bitmaps));
  data.add("refcount-bits", header.refcount_bits());
  if (header.has(kExternalDataFile) && !header.data_file.empty()) {
    data.add("data-file", header.data_file);
  }
  if (header.crypt_method != CryptMethod::kNone) {
    data.add("encrypt", describe_encryption(header.crypt_method, luks));
  }
  if (header.has(kExternalDataFile)) data.add("data-file-raw", header.has(kRawExternalData));
  if (version3) {
    data.add("corrupt", header.has(kCorrupt));
    data.add("extended-l2", header.has(kExtendedL2));
  }

  block::DriverInfo info;
  info.cluster_size = header.cluster_size();
  info.dirty = header.has(kDirty);
  info.encrypted = header.crypt_method != CryptMethod::kNone;
  for (const Snapshot& snapshot : snapshots) info.snapshots.push_back(describe_snapshot(snapshot));
  info.specific = Json::object();
  info.specific.add("type", "qcow2");
  info.specific.add("data", std::move(data));
  return info;
}

}  // namespace platter::format::qcow2
