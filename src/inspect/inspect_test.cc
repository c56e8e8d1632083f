#include "inspect/inspect.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/bytes.h"
#include "inspect/formats.h"
#include "inspect/policy.h"

namespace platter::inspect {
namespace {

class MemorySource : public Source {
 public:
  explicit MemorySource(std::vector<uint8_t> bytes)
      : Source(bytes.size()), bytes_(std::move(bytes)) {}

 protected:
  Result<void> read_at(uint64_t offset, std::span<uint8_t> into) override {
    std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), into.size(), into.begin());
    return {};
  }

 private:
  std::vector<uint8_t> bytes_;
};

TEST(Source, ReadsZeroesPastTheEnd) {
  MemorySource source({1, 2, 3});
  EXPECT_EQ(*source.read(1, 4), (std::vector<uint8_t>{2, 3, 0, 0}));
  EXPECT_EQ(*source.read(UINT64_MAX, 2), (std::vector<uint8_t>{0, 0}));
}

TEST(Source, RunsOutOfItsBudget) {
  MemorySource source({1});
  EXPECT_EQ(source.read(0, Source::kMaxReadBytes + 1).error().code(), EFBIG);
  ASSERT_TRUE(source.read(0, Source::kMaxReadBytes - 1));
  EXPECT_EQ(source.read(0, 2).error().code(), EFBIG);

  MemorySource many({1});
  for (unsigned i = 0; i < Source::kMaxReads; ++i) ASSERT_TRUE(many.read(0, 1));
  EXPECT_EQ(many.read(0, 1).error().code(), EFBIG);
}

class BrokenSource : public Source {
 public:
  BrokenSource() : Source(4096) {}

 protected:
  Result<void> read_at(uint64_t, std::span<uint8_t>) override {
    return std::unexpected(Error::from_errno(EIO, "Could not read the image"));
  }
};

TEST(Inspect, UnreadableFileIsAnError) {
  BrokenSource source;
  EXPECT_EQ(inspect_image(source, {}).error().code(), EIO);
}

TEST(Inspect, EmptyFileIsRaw) {
  MemorySource source({});
  const auto report = inspect_image(source, {});
  ASSERT_TRUE(report);
  EXPECT_EQ(report->format, "raw");
  EXPECT_EQ(report->virtual_size, 0u);
  EXPECT_TRUE(judge(*report, *builtin_policy("openstack")).empty());
}

TEST(Inspect, RawDiskIsNotTheFormatThatWasAskedFor) {
  MemorySource source(std::vector<uint8_t>(4096));
  const auto report = inspect_image(source, "qcow2");
  ASSERT_TRUE(report);
  EXPECT_EQ(report->format, "raw");
  EXPECT_EQ(report->damage, std::vector<std::string>{"It is not a 'qcow2' image"});
}

TEST(Report, ComesBackFromJson) {
  Report report;
  report.format = "vmdk";
  report.subformat = "x";
  report.version = 3;
  report.virtual_size = 1;
  report.file_size = UINT64_MAX;
  report.also = {"a"};
  report.content = {"b"};
  report.features = {"c"};
  report.unknown_features = {"d"};
  report.snapshots = {"e"};
  report.snapshots_total = 7;
  report.bitmaps = {"f"};
  report.bitmaps_total = 1;
  report.encryption = "aes";
  report.compression = "zlib";
  report.partition_damage = {"g"};
  report.add_reference(ReferenceKind::kExtent, "name", "FLAT");
  report.add_damage("h");
  const auto json = base::Json::parse(report_to_json(report).dump());
  ASSERT_TRUE(json);
  const auto again = report_from_json(*json);
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(*again, report);
}

TEST(Report, IsNotTrusted) {
  for (const std::string_view text :
       {R"([])", R"({})", R"({"format": 1})", R"({"format": "raw", "surprise": 1})",
        R"({"format": "raw", "file-size": -1})", R"({"format": "raw", "also": "x"})",
        R"({"format": "raw", "also": [1]})", R"({"format": "raw", "references": [{}]})",
        R"({"format": "raw", "references": [{"kind": "x", "name": "", "format": ""}]})"}) {
    EXPECT_FALSE(report_from_json(*base::Json::parse(text))) << text;
  }
  auto many = base::Json::array();
  for (size_t i = 0; i <= Report::kMaxListed; ++i) many.append("x");
  auto json = base::Json::object();
  json.add("format", "raw");
  json.add("snapshots", std::move(many));
  EXPECT_FALSE(report_from_json(json));
  auto long_name = base::Json::object();
  long_name.add("format", std::string(4 * Report::kMaxTextBytes + 1, 'x'));
  EXPECT_FALSE(report_from_json(long_name));
}

TEST(Report, ListsAreBounded) {
  Report report;
  for (size_t i = 0; i < 1000; ++i) report.add_reference(ReferenceKind::kExtent, "x");
  EXPECT_EQ(report.references.size(), Report::kMaxListed);
  EXPECT_EQ(report.references_total, 1000u);
  // What is not listed cannot be allowed.
  report.format = "vmdk";
  auto policy = *builtin_policy("default");
  std::ranges::fill(policy.names, NamesAllowed::kAny);
  policy.subformats.clear();
  EXPECT_EQ(judge(report, policy).size(), 1u);
}

TEST(Report, TextForATerminalHasNoControls) {
  EXPECT_EQ(printable("a b/\xc3\xa4\xe2\x82\xac"), "a b/\xc3\xa4\xe2\x82\xac");
  EXPECT_EQ(printable("\x1b[2J\n\x7f\xc2\x9b"), "\\x1b[2J\\x0a\\x7f\\xc2\\x9b");
  EXPECT_EQ(printable("\xff\xc3"), "\\xff\\xc3");
}

TEST(Report, NameForms) {
  EXPECT_EQ(name_form("base.qcow2"), NameForm::kRelativePath);
  EXPECT_EQ(name_form("./a:b"), NameForm::kRelativePath);
  EXPECT_EQ(name_form("/a"), NameForm::kAbsolutePath);
  EXPECT_EQ(name_form("\\\\server\\share"), NameForm::kAbsolutePath);
  EXPECT_EQ(name_form("nbd:unix:/run/x"), NameForm::kProtocol);
  EXPECT_EQ(name_form("C:\\base.vhd"), NameForm::kProtocol);
  EXPECT_EQ(name_form("json:{}"), NameForm::kJson);
}

TEST(Formats, TextOfUtf16) {
  const std::vector<uint8_t> bytes = {'a', 0, 0xe4, 0, 0xac, 0x20, 0x00, 0xd8, 0, 0, 'x', 0};
  EXPECT_EQ(utf16_text(bytes, false), "a\xc3\xa4\xe2\x82\xac\xef\xbf\xbd");
  EXPECT_EQ(utf16_text(std::span(bytes).first(1), false), "");
}

}  // namespace
}  // namespace platter::inspect
