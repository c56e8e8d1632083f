// null-co: a node that keeps nothing. Reads leave the buffers as they are, unless read-zeroes asks
// for zeroes. For benchmarks, and wherever only the cost of what lies above matters.

#include "block/driver.h"
#include "base/try.h"
#include "io/reactor.h"
#include "protocol/null/driver_type.h"

namespace platter::protocol {

namespace {

using base::OptionType;
using namespace block;

class NullDriver final : public Driver, public Reopenable {
 public:
  NullDriver(uint64_t size, uint64_t latency_ns, bool read_zeroes, Node& node)
      : size_(size), latency_(latency_ns), read_zeroes_(read_zeroes), node_(node) {}

  uint64_t size() const override { return size_; }
  Limits limits() const override {
    Limits limits;
    limits.supports_fua = limits.supports_unmap_zero = limits.supports_fast_zero = true;
    return limits;
  }

  io::Task<Result<void>> read(uint64_t, io::BufferList buffers) override {
    if (read_zeroes_) buffers.fill_zero();
    return done();
  }
  io::Task<Result<void>> write(uint64_t, io::BufferList, WriteFlags) override { return done(); }
  io::Task<Result<void>> zero(uint64_t, uint64_t, WriteFlags) override { return done(); }
  io::Task<Result<void>> discard(uint64_t, uint64_t) override { return done(); }
  io::Task<Result<void>> flush() override { return done(); }
  io::Task<Result<BlockStatus>> status(uint64_t offset, uint64_t length, StatusDetail) override {
    BlockStatus status;
    status.length = length;
    status.zero = read_zeroes_;
    status.allocated = true;
    status.has_host_offset = true;
    status.host_offset = offset;
    status.host = &node_;
    return io::Task<Result<BlockStatus>>::ready(status);
  }
  Reopenable* reopenable() override { return this; }
  io::Task<Result<void>> reopen(base::OptionSet, OpenFlags) override {
    return io::Task<Result<void>>::ready(Result<void>());
  }
  io::Task<Result<uint64_t>> allocated_size() override {
    return io::Task<Result<uint64_t>>::ready(uint64_t{0});
  }

 private:
  io::Task<Result<void>> done() {
    if (latency_.count() == 0) return io::Task<Result<void>>::ready(Result<void>());
    return after_latency();
  }
  io::Task<Result<void>> after_latency() {
    co_await io::Reactor::current()->sleep_for(latency_);
    co_return Result<void>();
  }

  uint64_t size_;
  io::Nanoseconds latency_;
  bool read_zeroes_;
  Node& node_;
};

io::Task<Result<std::unique_ptr<Driver>>> open_null(OpenContext& context) {
  const base::OptionSet& options = context.options();
  co_return std::make_unique<NullDriver>(options.get_size("size"), options.get_number("latency-ns"),
                                         options.get_bool("read-zeroes"), context.node());
}

Result<base::Options> parse_null_filename(std::string_view filename) {
  if (filename != "null-co://") {
    return fail(EINVAL, "The only allowed filename for this driver is 'null-co://'");
  }
  return base::Options();
}

constexpr base::OptionDef kOptions[] = {
    {.name = "size",
     .type = OptionType::kSize,
     .help = "size of the null block",
     .default_value = "1G",
     .max = kMaxLength},
    {.name = "latency-ns",
     .type = OptionType::kNumber,
     .help = "nanoseconds (approximated) to wait before completing request",
     .default_value = "0",
     .max = 3'600'000'000'000},
    {.name = "read-zeroes",
     .type = OptionType::kBool,
     .help = "return zeroes when read",
     .default_value = "off"},
};
constexpr std::string_view kIdentity[] = {"size", "read-zeroes"};

}  // namespace

const DriverType kNull = {
    .name = "null-co",
    .kind = DriverKind::kProtocol,
    .runtime_options = base::OptionSchema(kOptions),
    .create_options = base::OptionSchema({}),
    .filename_prefix = "null-co",
    .parse_filename = parse_null_filename,
    .identity_options = kIdentity,
    .open = open_null,
};

}  // namespace platter::protocol
