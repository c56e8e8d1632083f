#include "format/luks/driver.h"

#include <algorithm>
#include <cerrno>

#include "base/math.h"
#include "base/try.h"
#include "block/graph.h"
#include "block/secret_source.h"
#include "crypto/luks_amend.h"
#include "crypto/luks_options.h"

namespace platter::format::luks {

using block::ChildRole;
using crypto::kSectorBytes;

LuksDriver::LuksDriver(block::Node& node, block::Child& file, block::Child* header_file,
                       crypto::LuksHeader header)
    : node_(node),
      file_(file),
      payload_(file, header.payload_offset()),
      header_medium_(header_file != nullptr ? *header_file : file),
      header_(std::move(header)) {}

io::Task<Result<std::unique_ptr<block::Driver>>> LuksDriver::open(block::OpenContext& context) {
  const bool detached = context.names_child("header");
  const block::ChildRoles file_roles =
      detached ? ChildRole::kData | ChildRole::kPrimary : block::kImageRole;
  PLATTER_CO_ASSIGN(block::Child * file, co_await context.open_child("file", file_roles));
  block::Child* header_file = nullptr;
  if (detached) {
    PLATTER_CO_ASSIGN(header_file, co_await context.open_child("header", ChildRole::kMetadata));
  }
  crypto::MediumOver<block::Child> medium(detached ? *header_file : *file);
  PLATTER_CO_ASSIGN(auto header, co_await crypto::read_luks_header(medium));
  if (detached) header.payload_sector = 0;
  // Header and payload would lie on each other.
  if (!detached && header.payload_sector == 0 && !context.flags().no_io) {
    co_return fail(EINVAL,
                   "This LUKS header is for a payload in a file of its own: open that, and name "
                   "this one as its 'header'");
  }
  if (header.payload_offset() > file->size()) {
    co_return fail(EIO, "The LUKS payload begins behind the end of the file");
  }
  std::unique_ptr<LuksDriver> driver(
      new LuksDriver(context.node(), *file, header_file, std::move(header)));
  if (!context.flags().no_io) PLATTER_CO_TRY(co_await driver->unlock(context.options()));
  co_return std::unique_ptr<block::Driver>(std::move(driver));
}

io::Task<Result<void>> LuksDriver::unlock(const base::OptionSet& options) {
  if (!options.given("key-secret"))
    co_return fail(EINVAL, "Parameter 'key-secret' is required for cipher");
  PLATTER_CO_ASSIGN(const auto passphrase,
                    block::find_passphrase(node_.graph().environment().secrets,
                                           options.get_string("key-secret")));
  PLATTER_CO_ASSIGN(auto key,
                    co_await crypto::find_volume_key(header_, header_medium_, passphrase));
  if (!key) co_return fail(EACCES, "Invalid password, cannot unlock any keyslot");
  key_ = std::move(*key);
  PLATTER_CO_ASSIGN(cipher_, crypto::SectorCipher::create(header_.cipher, key_.span()));
  io_ = std::make_unique<crypto::EncryptedIo>(*cipher_);
  co_return Result<void>{};
}

uint64_t LuksDriver::size() const {
  const uint64_t whole = file_.size();
  const uint64_t offset = header_.payload_offset();
  return base::align_up(whole > offset ? whole - offset : 0, kSectorBytes);
}

block::Limits LuksDriver::limits() const {
  const block::Limits& below = file_.node().limits();
  block::Limits limits;
  limits.request_alignment = std::max(below.request_alignment, static_cast<uint32_t>(kSectorBytes));
  limits.memory_alignment = below.memory_alignment;
  limits.optimal_transfer = below.optimal_transfer;
  limits.variable_length = below.variable_length;
  return limits;
}

io::Task<Result<void>> LuksDriver::read(uint64_t offset, io::BufferList buffers) {
  return io_->read(payload_, offset, offset / kSectorBytes, buffers);
}

io::Task<Result<void>> LuksDriver::write(uint64_t offset, io::BufferList buffers,
                                         block::WriteFlags) {
  return io_->write(payload_, offset, offset / kSectorBytes, buffers);
}

// Nothing tells a hole from data: both decrypt to something.
io::Task<Result<block::BlockStatus>> LuksDriver::status(uint64_t offset, uint64_t length,
                                                        block::StatusDetail) {
  block::BlockStatus status;
  status.length = std::min(length, size() - std::min(size(), offset));
  status.data = status.allocated = status.length != 0;
  status.eof = offset + status.length == size();
  return io::Task<Result<block::BlockStatus>>::ready(status);
}

Result<block::DriverInfo> LuksDriver::info() const {
  block::DriverInfo info;
  info.encrypted = true;
  auto data = base::Json::object();
  crypto::describe_volume(header_, "", data);
  info.specific = base::Json::object();
  info.specific.add("type", "luks");
  info.specific.add("data", std::move(data));
  return info;
}

io::Task<Result<void>> LuksDriver::resize(uint64_t size, block::Preallocation preallocation,
                                          bool exact) {
  const uint64_t offset = header_.payload_offset();
  if (!base::range_within(offset, size, block::kMaxLength))
    return io::Task<Result<void>>::ready(fail(EFBIG, "The requested file size is too large"));
  return file_.resize(offset + size, preallocation, exact);
}

io::Task<Result<void>> LuksDriver::amend(const base::OptionSet& options, bool force,
                                         std::function<void(uint64_t, uint64_t)> progress) {
  if (key_.empty()) co_return fail(EINVAL, "The key slots of a locked volume cannot be changed");
  PLATTER_CO_ASSIGN(const auto change, crypto::parse_slot_change(options, ""));
  const auto* secrets = node_.graph().environment().secrets;
  const crypto::SecretLookup lookup = [secrets](std::string_view id) {
    return block::find_passphrase(secrets, id);
  };
  progress(0, 1);
  PLATTER_CO_TRY(
      co_await crypto::change_slots(header_, header_medium_, key_, change, lookup, force));
  progress(1, 1);
  co_return Result<void>{};
}

}  // namespace platter::format::luks
