#include "format/qcow2/create.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "block/backend.h"
#include "block/graph.h"
#include "block/secret_source.h"
#include "crypto/medium.h"
#include "format/qcow2/create_layout.h"
#include "format/qcow2/create_options.h"
#include "io/buffer.h"

namespace platter::format::qcow2 {

using block::Backend;
using block::Preallocation;

namespace {

constexpr uint64_t kWriteBytes = uint64_t{2} << 20;
constexpr uint64_t kStoredCount = 1;  // of every cluster of a new image

// Writes the tables of a new image, front to back.
class TableWriter {
 public:
  TableWriter(Backend& file, const Header& header, const Layout& layout)
      : file_(file),
        header_(header),
        geometry_(header.geometry()),
        layout_(layout),
        buffer_(std::max(kWriteBytes, geometry_.cluster_size())) {}

  io::Task<Result<void>> run() {
    PLATTER_CO_TRY(co_await write_table({.place = layout_.refcount_table,
                                         .clusters = layout_.refcount_table_clusters,
                                         .used = layout_.refcount_block_clusters,
                                         .target = layout_.refcount_blocks}));
    PLATTER_CO_TRY(co_await write_refcount_blocks());
    PLATTER_CO_TRY(co_await write_l1());
    // With subclusters their bitmaps are zero: none is allocated, each has its place.
    PLATTER_CO_TRY(co_await write_table({.place = layout_.l2_tables,
                                         .clusters = layout_.l2_clusters,
                                         .used = layout_.mapped_clusters,
                                         .target = geometry_.external_data ? 0 : layout_.data,
                                         .flags = data_flags(),
                                         .words = geometry_.l2_entry_words()}));
    co_return Result<void>{};
  }

  io::Task<Result<void>> write_header() {
    PLATTER_CO_ASSIGN(const auto bytes, serialise_header(header_));
    std::memset(buffer_.data(), 0, geometry_.cluster_size());
    std::ranges::copy(bytes, buffer_.data());
    co_return co_await file_.write(0, buffer_.view(0, geometry_.cluster_size()));
  }

 private:
  // What an encrypted image has not written decrypts to anything: its clusters are kept, and read
  // as zeroes. Version 2 cannot say so; with subclusters they are unallocated in any case.
  uint64_t data_flags() const {
    const bool encrypted = header_.crypt_method != CryptMethod::kNone;
    const bool flag = encrypted && geometry_.version >= 3 && !geometry_.extended_l2;
    return flag ? kCopiedFlag | kZeroFlag : kCopiedFlag;
  }

  // A table of `clusters` whose first `used` entries name consecutive clusters from `target` on.
  struct Table {
    uint64_t place;
    uint64_t clusters;
    uint64_t used;
    uint64_t target;
    uint64_t flags = 0;
    unsigned words = 1;  // of an entry; what comes after the first is zero
  };

  // Entries [first, first + count).
  void fill_entries(const Table& table, uint64_t first, uint64_t count) {
    const uint64_t entry_bytes = table.words * kTableEntryBytes;
    std::memset(buffer_.data(), 0, count * entry_bytes);
    for (uint64_t i = 0; i < count && first + i < table.used; ++i) {
      const uint64_t target = (table.target + first + i) << geometry_.cluster_bits;
      base::store_big(buffer_.span(), i * entry_bytes, target | table.flags);
    }
  }

  io::Task<Result<void>> write_table(Table table) {
    const uint64_t per_write = buffer_.size() >> geometry_.cluster_bits;
    const uint64_t per_cluster = geometry_.table_entries() / table.words;
    for (uint64_t done = 0; done < table.clusters;) {
      const uint64_t now = std::min(per_write, table.clusters - done);
      fill_entries(table, done * per_cluster, now * per_cluster);
      PLATTER_CO_TRY(co_await write_clusters(table.place + done, now));
      done += now;
    }
    co_return Result<void>{};
  }

  // Not padded to its cluster: the file may end with it.
  io::Task<Result<void>> write_l1() {
    const uint64_t per_write = buffer_.size() / kTableEntryBytes;
    for (uint64_t done = 0; done < header_.l1_entries;) {
      const uint64_t now = std::min(per_write, header_.l1_entries - done);
      fill_entries({.place = layout_.l1_table,
                    .clusters = layout_.l1_clusters,
                    .used = layout_.l2_clusters,
                    .target = layout_.l2_tables,
                    .flags = kCopiedFlag},
                   done, now);
      const uint64_t offset = header_.l1_table_offset + done * kTableEntryBytes;
      PLATTER_CO_TRY(co_await file_.write(offset, buffer_.view(0, now * kTableEntryBytes)));
      done += now;
    }
    co_return Result<void>{};
  }

  io::Task<Result<void>> write_refcount_blocks() {
    const uint64_t per_write = buffer_.size() >> geometry_.cluster_bits;
    const uint64_t entries = geometry_.refcount_block_entries();
    for (uint64_t done = 0; done < layout_.refcount_block_clusters;) {
      const uint64_t now = std::min(per_write, layout_.refcount_block_clusters - done);
      for (uint64_t block = 0; block < now; ++block) {
        const uint64_t first = (done + block) * entries;
        const uint64_t used = layout_.end > first ? std::min(entries, layout_.end - first) : 0;
        uint8_t* bytes = buffer_.data() + (block << geometry_.cluster_bits);
        std::memset(bytes, 0, geometry_.cluster_size());
        for (uint64_t i = 0; i < used; ++i) {
          store_refcount(bytes, i, geometry_.refcount_order, kStoredCount);
        }
      }
      PLATTER_CO_TRY(co_await write_clusters(layout_.refcount_blocks + done, now));
      done += now;
    }
    co_return Result<void>{};
  }

  io::Task<Result<void>> write_clusters(uint64_t place, uint64_t count) {
    return file_.write(place << geometry_.cluster_bits,
                       buffer_.view(0, count << geometry_.cluster_bits));
  }

  Backend& file_;
  const Header& header_;
  const Geometry geometry_;
  const Layout& layout_;
  io::AlignedBuffer buffer_;
};

io::Task<Result<void>> write_image(Backend& file, const CreateOptions& options,
                                   const Layout& layout, const base::SecretBytes& passphrase) {
  const Header& header = options.header;
  const Preallocation preallocation = options.preallocation;
  // A backend's user does not write past the end.
  const uint64_t tables_end = layout.l2_clusters != 0 || layout.encryption_clusters != 0
                                  ? layout.data << header.cluster_bits
                                  : header.l1_table_offset + header.l1_bytes();
  PLATTER_CO_TRY(co_await file.resize(tables_end, Preallocation::kOff, false));
  TableWriter writer(file, header, layout);
  PLATTER_CO_TRY(co_await writer.run());
  if (options.luks) {
    crypto::MediumOver<Backend> medium(file, header.crypto_header->offset,
                                       header.crypto_header->length);
    PLATTER_CO_TRY(co_await crypto::make_volume(*options.luks, medium, passphrase));
  }
  if (layout.data_clusters != 0) {
    const auto data_mode =
        preallocation == Preallocation::kMetadata ? Preallocation::kOff : preallocation;
    PLATTER_CO_TRY(co_await file.resize(layout.end << header.cluster_bits, data_mode, false));
  }
  co_return co_await writer.write_header();
}

io::Task<Result<void>> create_image(block::CreateContext& context, const CreateOptions& options,
                                    const Layout& layout, const base::SecretBytes& passphrase) {
  PLATTER_CO_ASSIGN(const auto file, co_await context.create_file());
  auto written = co_await write_image(*file, options, layout, passphrase);
  auto closed = co_await file->close();
  PLATTER_CO_TRY(std::move(written));
  co_return closed;
}

// An empty data file as large as the disk.
io::Task<Result<void>> create_data_file(block::CreateContext& context, uint64_t size,
                                        Preallocation preallocation) {
  PLATTER_CO_ASSIGN(const auto file, co_await context.create_file());
  const auto mode = preallocation == Preallocation::kMetadata ? Preallocation::kOff : preallocation;
  auto sized = co_await file->resize(size, mode, true);
  auto closed = co_await file->close();
  PLATTER_CO_TRY(std::move(sized));
  co_return closed;
}

io::Task<Result<void>> create_with_data_file(block::CreateContext& context,
                                             const CreateOptions& options, const Layout& layout,
                                             const base::SecretBytes& passphrase) {
  const Header& header = options.header;
  if (header.data_file == context.filename)
    co_return fail(EINVAL, "An image and its data file cannot be the same file");
  block::CreateContext beside = context.beside(header.data_file);
  auto made = co_await create_data_file(beside, header.size, options.preallocation);
  if (made) made = co_await create_image(context, options, layout, passphrase);
  if (!made) beside.remove_file();
  co_return made;
}

// Empty: the image is not encrypted. Of AES, which has no header, nothing is kept: that there is
// such a secret is all that is found out.
Result<base::SecretBytes> find_passphrase(const CreateOptions& options, const block::Graph& graph) {
  if (options.header.crypt_method == CryptMethod::kNone) return base::SecretBytes();
  if (options.key_secret.empty())
    return fail(EINVAL, "Parameter 'encrypt.key-secret' is required for cipher");
  return block::find_passphrase(graph.environment().secrets, options.key_secret);
}

}  // namespace

io::Task<Result<void>> create(block::CreateContext& context) {
  PLATTER_CO_ASSIGN(auto options, parse_create_options(context.options));
  Header& header = options.header;
  PLATTER_CO_ASSIGN(
      const Layout layout,
      plan_layout(header, options.preallocation != Preallocation::kOff, encryption_bytes(options)));
  header.refcount_table_offset = layout.refcount_table << header.cluster_bits;
  header.refcount_table_clusters = static_cast<uint32_t>(layout.refcount_table_clusters);
  header.l1_table_offset = layout.l1_table << header.cluster_bits;
  if (options.luks) {
    header.crypto_header = {.offset = layout.encryption << header.cluster_bits,
                            .length = encryption_bytes(options)};
  }
  PLATTER_CO_ASSIGN(const auto passphrase, find_passphrase(options, context.graph));

  if (header.has(kExternalDataFile))
    co_return co_await create_with_data_file(context, options, layout, passphrase);
  co_return co_await create_image(context, options, layout, passphrase);
}

}  // namespace platter::format::qcow2
