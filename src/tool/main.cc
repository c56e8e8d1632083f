#include "tool/program.h"

int main(int argc, char** argv) {
  return platter::tool::run_program({argv, static_cast<size_t>(argc)});
}
