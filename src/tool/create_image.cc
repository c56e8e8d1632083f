#include "tool/create_image.h"

#include <cerrno>

#include "base/try.h"
#include "block/filename.h"
#include "tool/image_open.h"

namespace platter::tool {
namespace {

// Where a backing file named in `filename` lies: what is relative starts from the new image's
// directory.
std::string full_backing_name(std::string_view filename, const std::string& backing) {
  if (backing.starts_with('/') || !block::protocol_prefix(backing).empty()) return backing;
  size_t end = filename.rfind('/');
  if (end == filename.npos) {
    const auto prefix = block::protocol_prefix(filename);
    end = prefix.empty() ? filename.npos : prefix.size();
  }
  return end == filename.npos ? backing : std::string(filename.substr(0, end + 1)) + backing;
}

std::string with_commas_doubled(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    escaped += c;
    if (c == ',') escaped += ',';
  }
  return escaped;
}

std::string option_text(const base::OptionSet& values, const base::OptionDef& def) {
  switch (def.type) {
    case base::OptionType::kBool: return values.get_bool(def.name) ? "on" : "off";
    case base::OptionType::kNumber:
    case base::OptionType::kSize: return std::to_string(values.get_number(def.name));
    case base::OptionType::kString: break;
  }
  return with_commas_doubled(values.get_string(def.name));
}

// " cluster_size=65536 size=1048576": what was given and, where `with_defaults`, what else will
// hold.
void append_values(std::string& line, const base::OptionSchema& schema,
                   const base::OptionSet& values, bool with_defaults) {
  for (const auto& def : schema.defs()) {
    if (!values.given(def.name) && !(with_defaults && values.has(def.name))) continue;
    line += " " + std::string(def.name) + "=" + option_text(values, def);
  }
}

struct Plan {
  CreateDrivers drivers;
  base::Options options;
  std::string backing_file;
  std::string backing_format;
};

Result<void> set_backing(Plan& plan, const NewImage& image) {
  const auto& known = plan.drivers.format->create_options;
  const std::string format_name(plan.drivers.format->name);
  if (image.backing_file) {
    if (known.find("backing_file") == nullptr) {
      return fail(ENOTSUP, "Backing file not supported for file format '" + format_name + "'");
    }
    plan.options.set("backing_file", *image.backing_file);
  }
  if (image.backing_format) {
    if (known.find("backing_fmt") == nullptr) {
      return fail(ENOTSUP,
                  "Backing file format not supported for file format '" + format_name + "'");
    }
    plan.options.set("backing_fmt", *image.backing_format);
  }
  if (plan.options.find("backing_file") == nullptr) return {};
  plan.backing_file = plan.options.find_string("backing_file").value_or("");
  plan.backing_format = plan.options.find_string("backing_fmt").value_or("");
  if (plan.backing_file == image.filename) {
    return fail(EINVAL,
                "Error: Trying to create an image with the same filename as the backing file");
  }
  if (plan.backing_file.empty())
    return fail(EINVAL, "Expected backing file name, got empty string");
  return {};
}

// Unknown names and malformed values are refused here, before anything is printed or made.
Result<void> check_options(const Plan& plan) {
  base::Options rest = plan.options;
  PLATTER_TRY(plan.drivers.format->create_options.take(rest));
  PLATTER_TRY(plan.drivers.protocol->create_options.parse(rest));
  return {};
}

Result<Plan> make_plan(const block::DriverRegistry& registry, const NewImage& image) {
  Plan plan;
  PLATTER_ASSIGN(plan.drivers, find_create_drivers(registry, image.format, image.filename));
  PLATTER_ASSIGN(plan.options, base::Options::from_key_values(image.option_list));
  PLATTER_TRY(check_options(plan));
  if (image.size) {
    if (plan.options.find("size") != nullptr)
      return fail(EINVAL, "The image size must be specified only once");
    plan.options.set("size", *image.size);
  }
  PLATTER_TRY(set_backing(plan, image));
  return plan;
}

// The reason alone: the hint says again what failed.
Error backing_error(const Error& error, const std::string& name) {
  std::string_view message = error.message();
  const std::string prefix = "Could not open '" + name + "': ";
  if (message.starts_with(prefix)) message.remove_prefix(prefix.size());
  return Error(error.code(), std::string(message)).with_hint("Could not open backing image.");
}

struct BackingFacts {
  uint64_t size = 0;
  std::string format;
};

io::Task<Result<BackingFacts>> look_at_backing(Session& session, const Plan& plan,
                                               const NewImage& image) {
  const std::string name = full_backing_name(image.filename, plan.backing_file);
  ImageArgument argument = {
      .name = name,
      .image_opts = false,
      .format = plan.backing_format,
      .force_share = true,
      .flags = {.read_only = true, .no_io = true},
      .cache = {},
  };
  auto backend = co_await open_image(session, std::move(argument));
  if (!backend) co_return std::unexpected(backing_error(backend.error(), name));
  BackingFacts facts{.size = (*backend)->size(),
                     .format = std::string((*backend)->node().type().name)};
  PLATTER_CO_TRY(co_await (*backend)->close());
  co_return facts;
}

io::Task<Result<void>> settle_backing(Session& session, Plan& plan, const NewImage& image) {
  if (plan.backing_file.empty()) co_return Result<void>();
  std::optional<BackingFacts> facts;
  if (!image.backing_unchecked) {
    PLATTER_CO_ASSIGN(facts, co_await look_at_backing(session, plan, image));
  }
  if (plan.backing_format.empty()) {
    Error error(EINVAL, "Backing file specified without backing format");
    if (facts) error = std::move(error).with_hint("Detected format of " + facts->format + ".");
    co_return std::unexpected(std::move(error));
  }
  if (facts && plan.options.find("size") == nullptr) plan.options.set("size", facts->size);
  co_return Result<void>();
}

Result<std::string> describe(const Plan& plan, const NewImage& image) {
  base::Options rest = plan.options;
  const auto& format_schema = plan.drivers.format->create_options;
  const auto& protocol_schema = plan.drivers.protocol->create_options;
  PLATTER_ASSIGN(auto format_values, format_schema.take(rest));
  PLATTER_ASSIGN(auto protocol_values, protocol_schema.parse(rest));
  std::string line = "Formatting '" + image.filename + "', fmt=" + image.format;
  append_values(line, format_schema, format_values,
                plan.drivers.format->kind == block::DriverKind::kFormat);
  append_values(line, protocol_schema, protocol_values, false);
  return line + "\n";
}

Error creation_error(Error error, const NewImage& image) {
  if (error.code() != EFBIG) return error;
  std::string message = "The image size is too large for file format '" + image.format + "'";
  if (image.format == "qcow2") message += " (try using a larger cluster size)";
  return Error(EFBIG, std::move(message));
}

io::Task<Result<void>> create_unprefixed(Session& session, const NewImage& image) {
  PLATTER_CO_ASSIGN(auto plan, make_plan(session.registry(), image));
  PLATTER_CO_TRY(co_await settle_backing(session, plan, image));
  if (plan.options.find("size") == nullptr) {
    co_return fail(EINVAL, "Image creation needs a size parameter");
  }
  PLATTER_CO_ASSIGN(auto description, describe(plan, image));
  if (!image.quiet) {
    session.console().print(description);
    session.console().flush();
  }
  HalfMadeFile half_made(session, image.filename);
  auto created = co_await session.graph().create(
      {.filename = image.filename, .format = image.format, .options = std::move(plan.options)});
  if (!created) co_return std::unexpected(creation_error(std::move(created).error(), image));
  co_return created;
}

}  // namespace

Result<CreateDrivers> find_create_drivers(const block::DriverRegistry& registry,
                                          std::string_view format, std::string_view filename) {
  const auto* format_type = registry.find(format);
  if (format_type == nullptr)
    return fail(EINVAL, "Unknown file format '" + std::string(format) + "'");
  PLATTER_ASSIGN(const auto* protocol_type, block::protocol_of(registry, filename));
  if (format_type->create == nullptr) {
    return fail(ENOTSUP,
                "Format driver '" + std::string(format) + "' does not support image creation");
  }
  if (protocol_type->create == nullptr) {
    return fail(ENOTSUP, "Protocol driver '" + std::string(protocol_type->name) +
                             "' does not support image creation");
  }
  return CreateDrivers{format_type, protocol_type};
}

io::Task<Result<void>> create_image(Session& session, NewImage image) {
  auto created = co_await create_unprefixed(session, image);
  if (!created) co_return std::unexpected(std::move(created).error().with_context(image.filename));
  co_return created;
}

Result<std::string> create_option_help(const block::DriverRegistry& registry,
                                       std::string_view format, std::string_view filename) {
  PLATTER_ASSIGN(auto drivers, find_create_drivers(registry, format, filename));
  if (filename.empty()) {
    return "Supported " + std::string(format) + " options:\n" +
           drivers.format->create_options.help_text() +
           "\nThe protocol level may support further options.\n"
           "Specify the target filename to include those options.\n";
  }
  // The format's own description of a name that both have.
  std::vector<base::OptionDef> defs(drivers.format->create_options.defs().begin(),
                                    drivers.format->create_options.defs().end());
  for (const auto& def : drivers.protocol->create_options.defs()) {
    if (drivers.format->create_options.find(def.name) == nullptr) defs.push_back(def);
  }
  return "Supported options:\n" + base::OptionSchema(defs).help_text();
}

}  // namespace platter::tool
