#include "base/options.h"

#include <gtest/gtest.h>

namespace platter::base {
namespace {

// "key=value;key=value" in order; text in quotes.
std::string show(const Options& options) {
  std::string out;
  for (const auto& [key, value] : options.entries()) {
    if (!out.empty()) out += "; ";
    out += key + "=" + std::visit([](const auto& scalar) { return Json(scalar).dump(); }, value);
  }
  return out;
}

std::string from_text(std::string_view text, std::string_view implied_key = {}) {
  return show(Options::from_key_values(text, implied_key).value());
}

std::string from_json(std::string_view text) {
  Result<Options> options = Options::from_json_text(text);
  return options ? show(*options) : "error: " + options.error().message();
}

TEST(Options, KeyValues) {
  EXPECT_EQ(from_text("driver=qcow2,file.filename=a.img"),
            R"(driver="qcow2"; file.filename="a.img")");
  EXPECT_EQ(from_text("name=a,,b,,,c=d"), R"(name="a,b,"; c="d")");
  EXPECT_EQ(from_text("a=b=c"), R"(a="b=c")");
  EXPECT_EQ(from_text("a=,b="), R"(a=""; b="")");
  EXPECT_EQ(from_text("a=1,b=2,a=3"), R"(a="3"; b="2")");
  EXPECT_EQ(from_text(""), "");
  EXPECT_EQ(from_text("a=1,"), R"(a="1")");
  EXPECT_EQ(from_text("=x"), R"(="x")");
}

TEST(Options, BareWords) {
  EXPECT_EQ(from_text("lazy_refcounts,nocow"), R"(lazy_refcounts="on"; cow="off")");
  EXPECT_EQ(from_text("a.img,driver=raw", "file"), R"(file="a.img"; driver="raw")");
  EXPECT_EQ(from_text("a,,b=c,x", "file"), R"(file="a,b=c"; x="on")");
  EXPECT_EQ(from_text("x=1,word", "file"), R"(x="1"; word="on")");
  EXPECT_EQ(from_text(",a=1"), R"(="on"; a="1")");
}

TEST(Options, JsonFlattens) {
  EXPECT_EQ(from_json(R"({"driver":"quorum","children":[{"driver":"raw"},"n1"],"vote":2,)"
                      R"("file":{"cache":{"direct":true}},"backing":null,"empty":{}})"),
            R"(driver="quorum"; children.0.driver="raw"; children.1="n1"; vote=2; )"
            R"(file.cache.direct=true; backing=null)");
  EXPECT_EQ(from_json("[]"), "error: Invalid JSON object given");
  EXPECT_EQ(from_json(R"({"a":1,"a":2})"),
            "error: Could not parse the JSON options: JSON parse error, duplicate key 'a'");
}

TEST(Options, JsonNestsAgain) {
  auto nested = [](std::string_view text) {
    return Options::from_key_values(text).value().to_json().dump();
  };
  EXPECT_EQ(nested("driver=raw,file.driver=file,size=1,file.filename=a"),
            R"({"driver": "raw", "file": {"driver": "file", "filename": "a"}, "size": "1"})");
  EXPECT_EQ(nested("children.0.driver=a,children.1=b"), R"({"children": [{"driver": "a"}, "b"]})");
  EXPECT_EQ(nested("c.1=b,c.0=a"), R"({"c": {"1": "b", "0": "a"}})");
  EXPECT_EQ(nested("0=a"), R"({"0": "a"})");
  EXPECT_EQ(nested("file=n,file.x.y=z"), R"({"file": "n", "file.x.y": "z"})");
  EXPECT_EQ(nested(""), "{}");
}

TEST(Options, Subtrees) {
  Options options = Options::from_key_values("file.driver=file,files=1,file=n,file.a.b=c").value();
  EXPECT_TRUE(options.has_subtree("file"));
  EXPECT_EQ(show(options.take_subtree("file")), R"(driver="file"; a.b="c")");
  EXPECT_EQ(show(options), R"(files="1"; file="n")");
  EXPECT_FALSE(options.has_subtree("file"));
}

TEST(Options, SetEraseMerge) {
  Options options;
  options.set("a", uint64_t{1});
  options.set("b", std::string("x"));
  options.set("a", true);
  EXPECT_EQ(show(options), R"(a=true; b="x")");
  EXPECT_EQ(options.find_string("b"), "x");
  EXPECT_EQ(options.find_string("a"), std::nullopt);
  options.merge_defaults(Options::from_key_values("b=y,c=z").value());
  EXPECT_EQ(show(options), R"(a=true; b="x"; c="z")");
  EXPECT_TRUE(options.erase("a"));
  EXPECT_FALSE(options.erase("a"));
  EXPECT_EQ(options.find("a"), nullptr);
}

// ---- Schemas

constexpr std::string_view kModes[] = {"off", "full"};
constexpr OptionDef kDefs[] = {
    {.name = "size", .type = OptionType::kSize, .help = "Virtual disk size"},
    {.name = "cluster_size",
     .type = OptionType::kSize,
     .help = "qcow2 cluster size",
     .default_value = "64k"},
    {.name = "compression_type", .type = OptionType::kString, .help = "Method"},
    {.name = "lazy_refcounts",
     .type = OptionType::kBool,
     .help = "Postpone refcount updates",
     .default_value = "off"},
    {.name = "refcount_bits", .type = OptionType::kNumber, .help = {}, .default_value = "16"},
    {.name = "depth", .type = OptionType::kNumber, .help = {}, .min = 1, .max = 16},
    {.name = "preallocation", .type = OptionType::kString, .help = "Mode", .choices = kModes},
};
constexpr OptionSchema kSchema{kDefs};

std::string refusal(std::string_view text) {
  Result<OptionSet> set = kSchema.parse(Options::from_key_values(text).value());
  return set ? "accepted" : set.error().message();
}

TEST(OptionSchema, TypesAndDefaults) {
  OptionSet set =
      kSchema
          .parse(Options::from_key_values(
                     "size=1.5G,lazy_refcounts,compression_type=zstd,refcount_bits=0x40")
                     .value())
          .value();
  EXPECT_EQ(set.get_size("size"), uint64_t{3} << 29);
  EXPECT_EQ(set.get_size("cluster_size"), 65536u);
  EXPECT_TRUE(set.get_bool("lazy_refcounts"));
  EXPECT_EQ(set.get_string("compression_type"), "zstd");
  EXPECT_EQ(set.get_number("refcount_bits"), 64u);
  EXPECT_TRUE(set.given("size"));
  EXPECT_FALSE(set.given("cluster_size"));
  EXPECT_TRUE(set.has("cluster_size"));
  EXPECT_FALSE(set.has("preallocation"));
}

TEST(OptionSchema, RefusalsReadAsQemuImgHasThem) {
  constexpr const char* kNoSize =
      "Parameter 'cluster_size' expects a non-negative number below 2^64";
  EXPECT_EQ(refusal("foo=1"), "Invalid parameter 'foo'");
  EXPECT_EQ(refusal("cluster_size=abc"), kNoSize);
  EXPECT_EQ(refusal("cluster_size"), kNoSize);
  EXPECT_EQ(refusal("cluster_size="), kNoSize);
  EXPECT_EQ(refusal("cluster_size=99999999999999999999"),
            "Value '99999999999999999999' is out of range for parameter 'cluster_size'");
  EXPECT_EQ(refusal("lazy_refcounts=maybe"), "Parameter 'lazy_refcounts' expects 'on' or 'off'");
  EXPECT_EQ(refusal("lazy_refcounts=ON"), "Parameter 'lazy_refcounts' expects 'on' or 'off'");
  EXPECT_EQ(refusal("refcount_bits=16k"), "Parameter 'refcount_bits' expects a number");
  EXPECT_EQ(refusal("refcount_bits="), "Parameter 'refcount_bits' expects a number");
  EXPECT_EQ(refusal("refcount_bits=99999999999999999999999"),
            "Value '99999999999999999999999' is too large for parameter 'refcount_bits'");
  EXPECT_EQ(refusal("depth=-1"), "Parameter 'depth' must be between 1 and 16");
  EXPECT_EQ(refusal("depth=0"), "Parameter 'depth' must be between 1 and 16");
  EXPECT_EQ(refusal("preallocation=foo"), "Parameter 'preallocation' does not accept value 'foo'");
  for (const char* fine : {"lazy_refcounts=yes", "lazy_refcounts=n", "refcount_bits=010",
                           "depth=16", "preallocation=full", "cluster_size= 64k"}) {
    EXPECT_EQ(refusal(fine), "accepted") << fine;
  }
  auto hint = kSchema.parse(Options::from_key_values("size=x").value()).error().hint();
  EXPECT_EQ(hint,
            "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
            "and exabytes, respectively.");
}

TEST(OptionSchema, JsonValuesMustFit) {
  auto accepts = [](std::string_view text) {
    return kSchema.parse(Options::from_json_text(text).value()).has_value();
  };
  EXPECT_TRUE(accepts(R"({"size": 1024, "lazy_refcounts": true, "refcount_bits": "16"})"));
  EXPECT_FALSE(accepts(R"({"size": 1.5})"));
  EXPECT_FALSE(accepts(R"({"size": -1})"));
  EXPECT_FALSE(accepts(R"({"size": null})"));
  EXPECT_FALSE(accepts(R"({"lazy_refcounts": 1})"));
  EXPECT_FALSE(accepts(R"({"compression_type": 3})"));
  EXPECT_FALSE(accepts(R"({"refcount_bits": true})"));
}

TEST(OptionSchema, TakeLeavesWhatItDoesNotKnow) {
  Options options = Options::from_key_values("nocow2=on,size=1k,extent_size_hint=0").value();
  OptionSet set = kSchema.take(options).value();
  EXPECT_EQ(set.get_size("size"), 1024u);
  EXPECT_EQ(show(options), R"(nocow2="on"; extent_size_hint="0")");
}

TEST(OptionSchemaDeathTest, AskingForWhatTheTableLacksIsOurMistake) {
  OptionSet set = kSchema.parse({}).value();
  EXPECT_DEATH(set.get_bool("no_such"), "does not hold");
  EXPECT_DEATH(set.get_bool("cluster_size"), "does not hold");
  EXPECT_DEATH(set.get_size("size"), "does not hold");
}

TEST(OptionSchema, HelpIsLaidOutInColumns) {
  EXPECT_EQ(kSchema.help_text(),
            "  cluster_size=<size>    - qcow2 cluster size\n"
            "  compression_type=<str> - Method\n"
            "  depth=<num>\n"
            "  lazy_refcounts=<bool (on/off)> - Postpone refcount updates\n"
            "  preallocation=<str>    - Mode\n"
            "  refcount_bits=<num>\n"
            "  size=<size>            - Virtual disk size\n");
}

}  // namespace
}  // namespace platter::base
