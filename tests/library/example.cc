// The README's example: an embedder sees include/platter/ and links libplatter.

#include <cstdio>
#include <vector>

#include "platter/image.h"
#include "platter/runtime.h"

namespace {

platter::Result<void> greet(const char* filename) {
  auto runtime = platter::Runtime::create();
  if (!runtime) return std::unexpected(runtime.error());

  auto made =
      platter::Image::create(**runtime, {.filename = filename, .format = "qcow2", .size = 1 << 30});
  if (!made) return made;

  auto image =
      platter::Image::open(**runtime, {.filename = filename, .format = "qcow2", .writable = true});
  if (!image) return std::unexpected(image.error());

  std::vector<uint8_t> greeting = {'h', 'e', 'l', 'l', 'o'};
  auto written = (*image)->write(512, greeting, {.durable = true});
  auto closed = (*image)->close();
  return written ? closed : written;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  auto greeted = greet(argv[1]);
  if (!greeted) std::fprintf(stderr, "%s\n", greeted.error().message().c_str());
  return greeted ? 0 : 1;
}
