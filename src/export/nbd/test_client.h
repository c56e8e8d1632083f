// A client that has said everything before it hears anything, and a server for it: for unit tests
// and the fuzzer.
#pragma once

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/try.h"
#include "export/nbd/negotiation.h"
#include "export/nbd/transmission.h"
#include "io/stream.h"

namespace platter::nbd::test {

using Bytes = std::vector<uint8_t>;

// Gives `said`, at most `step` bytes at a time, and then ends; keeps what is sent.
class ScriptedStream final : public io::Stream {
 public:
  explicit ScriptedStream(std::span<const uint8_t> said, size_t step = SIZE_MAX)
      : said_(said), step_(step) {}

  io::Task<Result<size_t>> receive(std::span<const iovec> pieces) override {
    co_await io::Reactor::current()->yield();
    if (cancelled_) co_return fail_errno(ECANCELED);
    size_t done = 0;
    for (const iovec& piece : pieces) {
      const size_t count = std::min({piece.iov_len, said_.size(), step_ - done});
      if (count != 0) std::memcpy(piece.iov_base, said_.data(), count);
      said_ = said_.subspan(count);
      done += count;
    }
    co_return done;
  }
  io::Task<Result<void>> send(std::span<iovec> pieces) override {
    co_await io::Reactor::current()->yield();
    if (cancelled_) co_return fail_errno(ECANCELED);
    if (broken) co_return fail_errno(EPIPE);
    for (const iovec& piece : pieces) {
      const auto* data = static_cast<const uint8_t*>(piece.iov_base);
      heard.insert(heard.end(), data, data + piece.iov_len);
    }
    co_return Result<void>();
  }
  void finish() override {}
  void cancel() override { cancelled_ = true; }

  Bytes heard;
  bool broken = false;  // nothing can be sent

 private:
  std::span<const uint8_t> said_;
  const size_t step_;
  bool cancelled_ = false;
};

// What a client says.
class Words {
 public:
  template <std::unsigned_integral T>
  Words& number(T value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof value);
    base::store_big(std::span(bytes_), at, value);
    return *this;
  }
  Words& raw(std::string_view text) {
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    return *this;
  }
  Words& text(std::string_view text) {
    return number(static_cast<uint32_t>(text.size())).raw(text);
  }
  Words& hello(uint32_t flags = kFixedNewstyle | kNoZeroes) { return number(flags); }
  Words& option(Option option, const Words& data = {}) {
    number(kOptionMagic).number(static_cast<uint32_t>(option));
    number(static_cast<uint32_t>(data.bytes_.size()));
    bytes_.insert(bytes_.end(), data.bytes_.begin(), data.bytes_.end());
    return *this;
  }
  static Words choice(std::string_view name, std::initializer_list<Info> infos = {}) {
    Words words;
    words.text(name).number(static_cast<uint16_t>(infos.size()));
    for (const Info info : infos) words.number(static_cast<uint16_t>(info));
    return words;
  }
  static Words query(std::string_view name, std::initializer_list<std::string_view> queries) {
    Words words;
    words.text(name).number(static_cast<uint32_t>(queries.size()));
    for (const auto query : queries) words.text(query);
    return words;
  }
  Words& go(std::string_view name) { return option(Option::kGo, choice(name)); }
  Words& request(Command command, uint64_t cookie, uint64_t offset, uint32_t length,
                 uint16_t flags = 0) {
    number(uint32_t{0x25609513}).number(flags).number(static_cast<uint16_t>(command));
    return number(cookie).number(offset).number(length);
  }
  Words& extended_request(Command command, uint64_t cookie, uint64_t offset, uint64_t length,
                          uint16_t flags = 0) {
    number(uint32_t{0x21e41c71}).number(flags).number(static_cast<uint16_t>(command));
    return number(cookie).number(offset).number(length);
  }

  const Bytes& bytes() const { return bytes_; }

 private:
  Bytes bytes_;
};

class TestHost final : public Host {
 public:
  std::vector<Export*> exports() override { return all; }
  Export* find(std::string_view name) override {
    const auto found = std::ranges::find(all, name, &Export::name);
    return found == all.end() ? nullptr : *found;
  }
  Export* claim(std::string_view name) override { return find(name); }
  bool has_tls() const override { return tls != nullptr; }
  io::Task<Result<io::Stream*>> start_tls() override { co_return tls; }
  bool multi_connection() const override { return true; }

  std::vector<Export*> all;
  io::Stream* tls = nullptr;  // that follows STARTTLS
};

// The whole of a connection. False: the client left before it had chosen.
inline io::Task<Result<bool>> converse(io::Stream& stream, TestHost& host) {
  Negotiation negotiation(stream, host);
  PLATTER_CO_ASSIGN(auto agreed, co_await negotiation.run());
  if (!agreed) co_return false;
  Transmission transmission(host.tls != nullptr ? *host.tls : stream, std::move(*agreed));
  PLATTER_CO_TRY(co_await transmission.run());
  co_return true;
}

}  // namespace platter::nbd::test
