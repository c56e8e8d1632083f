#include "tool/io_shell/line_reader.h"

#include <histedit.h>
#include <termios.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tool/io_shell/io_command.h"

namespace platter::tool::io_shell {
namespace {

class PlainReader : public LineReader {
 public:
  PlainReader(Console& console, std::string prompt)
      : console_(console), prompt_(std::move(prompt)) {}
  ~PlainReader() override { std::free(line_); }

  std::optional<std::string> next() override {
    console_.print(prompt_);
    console_.flush();
    ssize_t length = getline(&line_, &capacity_, stdin);
    if (length < 0) return std::nullopt;
    if (length > 0 && line_[length - 1] == '\n') --length;
    return std::string(line_, static_cast<size_t>(length));
  }

 private:
  Console& console_;
  const std::string prompt_;
  char* line_ = nullptr;
  size_t capacity_ = 0;
};

class EditingReader : public LineReader {
 public:
  EditingReader(Console& console, Interrupts& interrupts, std::string prompt)
      : console_(console), interrupts_(interrupts), prompt_(std::move(prompt)) {
    tcgetattr(STDIN_FILENO, &terminal_);
    interrupts_.set_handler([this] {
      tcsetattr(STDIN_FILENO, TCSANOW, &terminal_);
      die_of(interrupts_.caught());
    });
    editor_ = el_init(console.program_name().c_str(), stdin, stdout, stderr);
    history_ = history_init();
    HistEvent event;
    history(history_, &event, H_SETSIZE, kHistoryLines);
    history(history_, &event, H_SETUNIQUE, 1);
    el_set(editor_, EL_CLIENTDATA, this);
    el_set(editor_, EL_PROMPT, &EditingReader::prompt_of);
    el_set(editor_, EL_EDITOR, "emacs");
    el_set(editor_, EL_HIST, history, history_);
    el_set(editor_, EL_ADDFN, "complete-command", "Complete the name of a command",
           &EditingReader::complete);
    el_set(editor_, EL_BIND, "^I", "complete-command", nullptr);
    el_source(editor_, nullptr);  // the user's own .editrc
  }
  ~EditingReader() override {
    history_end(history_);
    el_end(editor_);
    interrupts_.set_handler({});
  }

  std::optional<std::string> next() override {
    console_.flush();
    int count = 0;
    const char* line = el_gets(editor_, &count);
    if (line == nullptr || count <= 0) {
      console_.print("\n");
      return std::nullopt;
    }
    std::string text(line, static_cast<size_t>(count));
    if (text.ends_with('\n')) text.pop_back();
    HistEvent event;
    if (!text.empty()) history(history_, &event, H_ENTER, text.c_str());
    return text;
  }

 private:
  static constexpr int kHistoryLines = 500;

  static const char* prompt_of(EditLine* editor) {
    void* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return static_cast<EditingReader*>(self)->prompt_.c_str();
  }

  // Completes the line's first word as far as it is clear.
  static unsigned char complete(EditLine* editor, int) {
    const LineInfo* line = el_line(editor);
    const std::string_view typed(line->buffer, static_cast<size_t>(line->cursor - line->buffer));
    if (typed.find(' ') != typed.npos) return CC_ERROR;
    std::optional<std::string> common;
    size_t matches = 0;
    for (const auto* command : all_io_commands()) {
      if (!command->name.starts_with(typed)) continue;
      ++matches;
      if (!common) common = std::string(command->name);
      while (!command->name.starts_with(*common)) common->pop_back();
    }
    if (!common) return CC_ERROR;
    std::string rest = common->substr(typed.size());
    if (matches == 1) rest += ' ';
    if (rest.empty()) return CC_REFRESH_BEEP;
    return el_insertstr(editor, rest.c_str()) == 0 ? CC_REFRESH : CC_ERROR;
  }

  Console& console_;
  Interrupts& interrupts_;
  const std::string prompt_;
  termios terminal_{};
  EditLine* editor_ = nullptr;
  History* history_ = nullptr;
};

}  // namespace

std::unique_ptr<LineReader> LineReader::for_standard_input(Console& console, Interrupts& interrupts,
                                                           std::string prompt) {
  if (isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1)
    return std::make_unique<EditingReader>(console, interrupts, std::move(prompt));
  return std::make_unique<PlainReader>(console, std::move(prompt));
}

}  // namespace platter::tool::io_shell
