#include "monitor/device_options.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "monitor/definitions.h"
#include "virtio/features.h"

namespace platter::monitor {
namespace {

using virtio::blk::OnError;
using Names = std::vector<std::string>;

class DeviceOptionsTest : public testing::Test {
 protected:
  Result<DeviceOptions> read(std::string_view more) const {
    return read_all("virtio-blk,id=d,drive=n,addr.type=unix,addr.path=s" + std::string(more));
  }
  Result<DeviceOptions> read_all(std::string_view text) const {
    auto all = parse_definition(*schema_.find_type("DeviceOptions"), text, "driver");
    if (!all) return std::unexpected(std::move(all).error());
    return read_device_options(*all);
  }
  std::string refusal(std::string_view more) const {
    const auto options = read(more);
    return options ? "is taken" : options.error().message();
  }
  Names threads(std::string_view more) const {
    const auto options = read(more);
    return options ? options->iothreads : Names{options.error().message()};
  }

  const Schema schema_{kSchemaText, kDeviceSchemaText};
};

TEST_F(DeviceOptionsTest, WhatIsNotSaidIsAsOfQemusDevice) {
  const auto options = read("");
  ASSERT_TRUE(options) << options.error().message();
  EXPECT_EQ(options->id, "d");
  EXPECT_EQ(options->drive, "n");
  EXPECT_EQ(options->served.path, "s");
  EXPECT_FALSE(options->shares_writes);
  EXPECT_TRUE(options->iothreads.empty());
  const auto& properties = options->served.properties;
  EXPECT_EQ(properties.queues, DeviceOptions::kAutomaticQueues);
  EXPECT_EQ(properties.queue_size, 256);
  EXPECT_EQ(properties.logical_block_bytes, 512U);
  EXPECT_EQ(properties.max_discard_sectors, 4194303U);
  EXPECT_EQ(properties.read_error, OnError::kAuto);
  EXPECT_EQ(properties.write_error, OnError::kAuto);
  EXPECT_EQ(properties.serial, "");
  EXPECT_TRUE(properties.config_wce);
  EXPECT_EQ(properties.withheld_features, virtio::kPackedRing | virtio::kInOrder);
}

TEST_F(DeviceOptionsTest, EachPropertyArrives) {
  const auto options = read(
      ",logical_block_size=4096,physical_block_size=8k,min_io_size=8k,opt_io_size=1M,"
      "discard_granularity=64k,write-cache=off,share-rw=on,rerror=ignore,werror=stop,cyls=1000,"
      "heads=16,secs=63,serial=123456789012345678901234,config-wce=off,request-merging=off,"
      "num-queues=3,queue-size=512,seg-max-adjust=off,iothread=t,discard=off,write-zeroes=off,"
      "report-discard-granularity=off,max-discard-sectors=7,max-write-zeroes-sectors=8,"
      "x-enable-wce-if-config-wce=off,indirect_desc=off,event_idx=off,packed=on,in_order=on");
  ASSERT_TRUE(options) << options.error().message();
  EXPECT_TRUE(options->shares_writes);
  EXPECT_EQ(options->iothreads, Names{"t"});
  const auto& properties = options->served.properties;
  EXPECT_EQ(properties.logical_block_bytes, 4096U);
  EXPECT_EQ(properties.physical_block_bytes, 8192U);
  EXPECT_EQ(properties.min_io_bytes, 8192U);
  EXPECT_EQ(properties.opt_io_bytes, 1U << 20);
  EXPECT_EQ(properties.discard_granularity, 65536U);
  EXPECT_EQ(properties.write_cache, virtio::blk::OnOffAuto::kOff);
  EXPECT_EQ(properties.read_error, OnError::kIgnore);
  EXPECT_EQ(properties.write_error, OnError::kStop);
  EXPECT_EQ(properties.geometry,
            (virtio::blk::DiskGeometry{.cylinders = 1000, .heads = 16, .sectors = 63}));
  EXPECT_EQ(properties.serial, "12345678901234567890");
  EXPECT_EQ(properties.queues, 3);
  EXPECT_EQ(properties.queue_size, 512);
  EXPECT_EQ(properties.max_discard_sectors, 7U);
  EXPECT_EQ(properties.max_write_zeroes_sectors, 8U);
  EXPECT_FALSE(properties.config_wce || properties.request_merging || properties.seg_max_adjust ||
               properties.discard || properties.write_zeroes ||
               properties.report_discard_granularity || properties.enable_wce_if_config_wce);
  EXPECT_EQ(properties.withheld_features, virtio::kIndirectDescriptors | virtio::kEventIndex);
}

TEST_F(DeviceOptionsTest, WhatCannotBeIsRefused) {
  constexpr std::pair<std::string_view, std::string_view> kRefusals[] = {
      {",logical_block_size=1000", "logical_block_size is 1000"},
      {",logical_block_size=4M,physical_block_size=4M", "between 512 and 2097152"},
      {",logical_block_size=4096", "logical_block_size > physical_block_size not supported"},
      {",min_io_size=513", "min_io_size must be a multiple of logical_block_size"},
      {",min_io_size=64M", "min_io_size must not exceed 65535 logical blocks"},
      {",opt_io_size=8G", "opt_io_size must not exceed 4294967295"},
      {",discard_granularity=700", "discard_granularity must be a multiple"},
      {",rerror=enospc", "rerror cannot be enospc"},
      {",werror=perhaps", "does not accept value 'perhaps'"},
      {",cyls=70000,heads=1,secs=1", "cyls must be between 1 and 65535"},
      {",cyls=1,heads=1", "secs must be between 1 and 255"},
      {",num-queues=0", "num-queues property must be larger than 0"},
      {",num-queues=1025", "num-queues property is 1025"},
      {",queue-size=2", "invalid queue-size property (2), must be > 2"},
      {",queue-size=100", "invalid queue-size property (100), must be a power of 2"},
      {",max-discard-sectors=0", "invalid max-discard-sectors property (0), must be between 1 and"},
      {",ioeventfd=on", "Parameter 'ioeventfd' is not taken: it belongs to the PCI device"},
      {",vectors=3", "Parameter 'vectors' is not taken: it belongs to the PCI device"},
      {",bootindex=1", "Parameter 'bootindex' is not taken: it belongs to the front-end's device"},
      {",queue_reset=on", "Parameter 'queue_reset' is not taken: a front-end stops and starts"},
      {",nonsense=1", "Parameter 'nonsense' is unexpected"},
      {",addr.abstract=on", "cannot be abstract"},
  };
  for (const auto& [more, why] : kRefusals) {
    const std::string said = refusal(more);
    EXPECT_NE(said.find(why), std::string::npos) << more << ": " << said;
  }
  const auto without = read_all("virtio-blk,id=d,addr.type=unix,addr.path=s");
  ASSERT_FALSE(without);
  EXPECT_EQ(without.error().message(), "drive property not set");
  const auto other = read_all("virtio-net,id=d,addr.type=unix,addr.path=s");
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().message().find("does not accept value 'virtio-net'"), std::string::npos);
}

// ---- iothread-vq-mapping

TEST_F(DeviceOptionsTest, QueuesAreDealtOutToTheirThreads) {
  EXPECT_EQ(threads(",num-queues=4,iothread-vq-mapping.0.iothread=a,"
                    "iothread-vq-mapping.1.iothread=b"),
            (Names{"a", "b"}));
  EXPECT_EQ(threads(",num-queues=3,iothread-vq-mapping.0.iothread=a,iothread-vq-mapping.0.vqs.0=1,"
                    "iothread-vq-mapping.1.iothread=b,iothread-vq-mapping.1.vqs.0=0,"
                    "iothread-vq-mapping.1.vqs.1=2"),
            (Names{"b", "a", "b"}));
  // As many queues as are named.
  const auto automatic = read(
      ",iothread-vq-mapping.0.iothread=a,iothread-vq-mapping.0.vqs.0=1,"
      "iothread-vq-mapping.0.vqs.1=0");
  ASSERT_TRUE(automatic) << automatic.error().message();
  EXPECT_EQ(automatic->served.properties.queues, 2);
}

TEST_F(DeviceOptionsTest, AMappingThatCannotBeIsRefused) {
  const std::string a = ",iothread-vq-mapping.0.iothread=a";
  const std::string b = ",iothread-vq-mapping.1.iothread=b";
  const std::string queues = ",num-queues=2";
  const auto of = [](int entry, int index, int queue) {
    return fmt::format(",iothread-vq-mapping.{}.vqs.{}={}", entry, index, queue);
  };
  EXPECT_EQ(refusal(a + ",iothread=t"), "iothread and iothread-vq-mapping exclude each other");
  EXPECT_EQ(refusal(a + ",iothread-vq-mapping.1.iothread=a"),
            "iothread-vq-mapping names iothread \"a\" twice");
  EXPECT_EQ(refusal(queues + a + b + of(0, 0, 0)),
            "iothread-vq-mapping has vqs for some of its iothreads only");
  EXPECT_EQ(refusal(queues + a + b + of(0, 0, 0) + of(1, 0, 2)),
            "iothread-vq-mapping assigns vq 2 to \"b\"; num-queues is 2");
  EXPECT_EQ(refusal(queues + a + b + of(0, 0, 0) + of(0, 1, 1) + of(1, 0, 1)),
            "iothread-vq-mapping assigns vq 1 to \"b\", and has assigned it to \"a\"");
  EXPECT_EQ(refusal(",num-queues=3" + a + b + of(0, 0, 0) + of(1, 0, 2)),
            "iothread-vq-mapping assigns vq 1 to no iothread");
  EXPECT_TRUE(refusal(a + of(0, 0, 70000)).ends_with(" expects uint16_t"));
}

}  // namespace
}  // namespace platter::monitor
