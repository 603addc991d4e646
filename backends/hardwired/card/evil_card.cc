// A card process that lies, for tests of the host's side. It speaks the greeting and answers orders
// mostly as a card would, but most answers carry something wrong under a right check word, and now
// and then rings and registers are overwritten with noise.
//
//   evil-card card --fd N        the seed of its lies: EVIL_CARD_SEED
#include <poll.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "backends/hardwired/card/card_config.h"
#include "backends/hardwired/card/card_link.h"
#include "backends/hardwired/card/completions.h"
#include "backends/hardwired/card/firmware_loop.h"
#include "backends/hardwired/card/orders.h"

namespace reticle::backends::hardwired {
namespace {

constexpr int kGreetingMs = 10'000;

struct Sequence {
  uint64_t id = 0;
  uint64_t tag = 0;
  uint32_t next_position = 0;
  uint32_t credits = 0;
  uint32_t fed = 0;  // of a prompt that is not answered yet
};

class EvilCard {
 public:
  EvilCard(std::shared_ptr<CardMemory> memory, const reticle_capabilities& caps, uint64_t seed)
      : memory_(std::move(memory)),
        caps_(caps),
        random_(seed),
        orders_(memory_),
        completions_(memory_) {}

  // One thing that a card does; false: it goes away without a word.
  bool Step() {
    memory_->registers().heartbeat.fetch_add(1);
    ReadOrders();
    const uint32_t what = Pick(1000);
    if (what < 900) {
      Answer();
    } else if (what < 960) {
      Invent();
    } else if (what < 985) {
      SpoilRegisters();
    } else if (what < 998) {
      SpoilRing();
    } else {
      return Pick(4) != 0;
    }
    completions_.Flush();
    return true;
  }

 private:
  uint32_t Pick(uint32_t limit) { return static_cast<uint32_t>(random_() % limit); }
  uint64_t Number() {
    const uint64_t numbers[] = {0, 1, random_() % 64, random_(), UINT64_MAX, uint64_t{1} << 63};
    return numbers[Pick(std::size(numbers))];
  }

  void ReadOrders() {
    Order order;
    while (orders_.Read(caps_.vocab_size, &order)) {
      if (order.kind == OrderKind::kCancel) {
        if (Pick(2) == 0) End(order.sequence);
        continue;
      }
      if (order.kind != OrderKind::kWork) continue;
      Sequence& sequence = Find(order.work.sequence);
      sequence.tag = order.work.tag;
      sequence.credits += order.work.decode_credits;
      if (order.work.token_count > 0) {
        sequence.fed += order.work.token_count;
        sequence.next_position = order.work.position + order.work.token_count;
      }
    }
  }

  Sequence& Find(uint64_t id) {
    for (Sequence& sequence : sequences_) {
      if (sequence.id == id) return sequence;
    }
    sequences_.push_back({.id = id});
    return sequences_.back();
  }

  CompletionCell CellOf(const Sequence& sequence, uint8_t kind) {
    CompletionCell cell{};
    cell.kind = kind;
    cell.sequence = sequence.id;
    cell.tag = sequence.tag;
    cell.device_time_ns = ++time_ns_;
    cell.token = Pick(caps_.vocab_size);
    return cell;
  }

  void End(uint64_t id) {
    CompletionCell cell = CellOf({.id = id}, RETICLE_COMPLETION_END);
    cell.finish = RETICLE_FINISH_CANCELLED;
    completions_.Push(cell);
  }

  // What is due, with a lie in one of ten.
  void Answer() {
    if (sequences_.empty()) return;
    Sequence& sequence = sequences_[Pick(static_cast<uint32_t>(sequences_.size()))];
    CompletionCell cell;
    if (sequence.fed > 0) {
      cell = CellOf(sequence, RETICLE_COMPLETION_PREFILL);
      cell.position = sequence.next_position - 1;
      cell.token_count = sequence.fed;
      sequence.fed = 0;
    } else if (sequence.credits > 0) {
      cell = CellOf(sequence, RETICLE_COMPLETION_TOKEN);
      cell.position = sequence.next_position++;
      cell.credits_left = --sequence.credits;
    } else {
      return;
    }
    if (Pick(10) == 0) Falsify(&cell);
    std::vector<reticle_token_logprob> top(Pick(20) == 0 ? Pick(250) : 0);
    for (reticle_token_logprob& entry : top) {
      entry.token = static_cast<uint32_t>(Number());
      entry.logprob = Pick(2) == 0 ? std::numeric_limits<float>::quiet_NaN() : -1.0f;
    }
    completions_.Push(cell, top, Pick(20) == 0 ? std::string("\xff\x00 \"evil\x80", 9) : "");
  }

  void Falsify(CompletionCell* cell) {
    switch (Pick(12)) {
      case 0:
        cell->kind = static_cast<uint8_t>(Number());
        return;
      case 1:
        cell->finish = static_cast<uint8_t>(Number());
        return;
      case 2:
        cell->sequence = Number();
        return;
      case 3:
        cell->tag = Number();
        return;
      case 4:
        cell->token = static_cast<uint32_t>(Number());
        return;
      case 5:
        cell->position = static_cast<uint32_t>(Number());
        return;
      case 6:
        cell->token_count = static_cast<uint32_t>(Number());
        return;
      case 7:
        cell->device_time_ns = Number();
        return;
      case 8:
        cell->busy_ns = Number();
        cell->energy_nj = Number();
        return;
      case 9:
        cell->status = static_cast<int32_t>(Number());
        return;
      case 10:
        cell->logprob = std::numeric_limits<float>::quiet_NaN();
        cell->rank = static_cast<uint32_t>(Number());
        return;
      default:
        cell->kind = RETICLE_COMPLETION_PROMPT_LOGPROB;
    }
  }

  // What nobody asked for: of sequences that have ended or never were, and answers to no order.
  void Invent() {
    const uint64_t known = sequences_.empty() ? 0 : sequences_.back().id;
    const uint8_t kinds[] = {RETICLE_COMPLETION_TOKEN, RETICLE_COMPLETION_PREFILL,
                             RETICLE_COMPLETION_PROMPT_LOGPROB, RETICLE_COMPLETION_END,
                             kAdapterResult};
    const uint64_t ids[] = {known, known - Pick(3), Number()};
    const uint32_t times = Pick(3) == 0 ? 2000 : 1;
    CompletionCell cell = CellOf({.id = ids[Pick(3)]}, kinds[Pick(5)]);
    cell.finish = static_cast<uint8_t>(Pick(2) == 0 ? 0 : Pick(8));
    cell.status = static_cast<int32_t>(Pick(40)) - 10;
    for (uint32_t i = 0; i < times; ++i) completions_.Push(cell, {}, "no\ttext \xc3");
  }

  void SpoilRegisters() {
    CardRegisters& r = memory_->registers();
    std::atomic<uint64_t>* const wide[] = {
        &r.completion_tail, &r.submission_head,  &r.resent,          &r.advanced,
        &r.completion_head, &r.submission_tail,  &r.device_time_ns,  &r.busy_ns,
        &r.energy_uj,       &r.temperature_mc,   &r.utilization_ppm, &r.power_mw,
        &r.stretched_ns,    &r.corrected_errors, &r.resend_cell,     &r.last_corrected_ns};
    switch (Pick(6)) {
      case 0:
        r.state.store(static_cast<uint32_t>(Number()));
        return;
      case 1:
        r.next_event_ns.store(static_cast<int64_t>(Number()));
        return;
      case 2:
        r.submission_bytes = Number();
        r.completion_cells = static_cast<uint32_t>(Number());
        return;
      case 3:
        std::memset(&r.capabilities, Pick(256), sizeof(r.capabilities));
        return;
      default:
        wide[Pick(std::size(wide))]->store(Number());
    }
  }

  void SpoilRing() {
    const std::span<CompletionCell> ring = memory_->completions();
    auto* const bytes = reinterpret_cast<unsigned char*>(ring.data());
    for (uint32_t i = Pick(2000); i > 0; --i) {
      bytes[random_() % ring.size_bytes()] = static_cast<unsigned char>(random_());
    }
  }

  const std::shared_ptr<CardMemory> memory_;
  const reticle_capabilities caps_;
  std::mt19937_64 random_;
  OrderReader orders_;
  CompletionWriter completions_;
  std::vector<Sequence> sequences_;
  uint64_t time_ns_ = 1'000'000;
};

int Run(int socket) {
  const UniqueFd host(socket);
  const auto greeting = ReceiveCardMessage(host.get(), kGreetingMs);
  if (!greeting.ok() || greeting->fds.size() != 1) return 1;
  CardConfig config;
  for (const auto& [name, value] : SplitOptions(greeting->text)) {
    if (!config.Set(name, value).ok()) return 1;
  }
  const auto parts = BuildCard(config);
  const auto memory = CardMemory::Create(1 << 20, 1024);
  const UniqueFd doorbell(dup(greeting->fds[0].get()));
  if (!parts.ok() || !memory.ok()) return 1;
  (*memory)->registers().capabilities = parts->capabilities;
  (*memory)->registers().state.store(static_cast<uint32_t>(CardState::kRunning));
  if (!SendCardMessage(host.get(), "status=0\n", {(*memory)->fd(), doorbell.get()}).ok()) return 1;
  const char* const seed = std::getenv("EVIL_CARD_SEED");
  EvilCard card(
      *memory, parts->capabilities,
      seed == nullptr ? static_cast<uint64_t>(getpid()) : std::strtoull(seed, nullptr, 10));
  pollfd end{host.get(), POLLIN, 0};
  while (card.Step() && poll(&end, 1, 0) == 0) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(greeting->fds[0].get(), &one, sizeof(one));
    usleep(20);
  }
  return 0;
}

}  // namespace
}  // namespace reticle::backends::hardwired

int main(int argc, char** argv) {
  return argc == 4 ? reticle::backends::hardwired::Run(std::atoi(argv[3])) : 2;
}
