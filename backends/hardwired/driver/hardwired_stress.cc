// A long test of the card's driver: work, cancels, faults and resets at random on cards in every
// place, watched by other threads, under the sanitizers. Each sequence must end exactly once, and
// what ends by itself must say what it says undisturbed.
//
//   hardwired_stress [SECONDS] [SEED]     default 3 seconds, seed 1; exits with 1 at a mistake
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "backends/hardwired/driver/device_test_util.h"

namespace reticle::backends::hardwired {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kFaults[] = {"hang",   "crash",  "slow=2,for=5ms", "thermal=0.5",
                                   "link=2", "link=0", "corrected=3",    "uncorrected",
                                   "image",  "clear"};

struct Place {
  const char* name;
  OptionList options;
};

class Stress {
 public:
  Stress(const Place& place, uint64_t seed, Clock::time_point end)
      : place_(place), random_(seed), end_(end) {}

  // Returns the number of mistakes.
  int Run() {
    OptionList options = place_.options;
    options.insert(options.end(), {{"watchdog_ms", "20"},
                                   {"scrub_ms", "5"},
                                   {"timing.decode_rate", "200000"},
                                   {"timing.prefill_fixed", "10"},
                                   {"limits.run_ahead", "16"},
                                   {"name", place_.name}});
    auto device = OpenCard(options);
    if (!device.ok()) return Mistake("open: " + device.status().ToString());
    host_ = std::make_unique<TestHost>(*std::move(device), /*records=*/false);
    std::atomic<bool> stop{false};
    std::thread watcher([&] {
      while (!stop.load()) {
        if (!host_->device().Stats().ok() || !host_->device().Health().ok()) ++mistakes_;
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    });
    while (Clock::now() < end_ && mistakes_ == 0) Step();
    Finish();
    stop.store(true);
    watcher.join();
    Report();
    return mistakes_;
  }

 private:
  uint32_t Pick(uint32_t limit) { return static_cast<uint32_t>(random_() % limit); }

  int Mistake(const std::string& what) {
    std::fprintf(stderr, "%s: %s\n", place_.name, what.c_str());
    return ++mistakes_;
  }

  void Step() {
    if (!host_->loss().ok()) {
      Reset();
      return;
    }
    const uint32_t what = Pick(1000);
    if (what < 60 && Alive() < 24) {
      const uint64_t id = ++next_id_;
      const absl::Status begun = host_->Begin(id, 1 + id % 31, 1 + Pick(120));
      if (!begun.ok() && begun.code() != absl::StatusCode::kResourceExhausted &&
          begun.code() != absl::StatusCode::kUnavailable) {
        Mistake("begin: " + begun.ToString());
      }
    } else if (what < 75 && next_id_ > 0) {
      const absl::Status cancelled =
          host_->device().Cancel(1 + Pick(static_cast<uint32_t>(next_id_)));
      if (!cancelled.ok() && cancelled.code() != absl::StatusCode::kNotFound) {
        Mistake("cancel: " + cancelled.ToString());
      }
    } else if (what < 78) {
      const auto fault = ParseFault(kFaults[Pick(std::size(kFaults))]);
      ++faults_;
      if (!fault.ok() || !InjectFault(place_.name, *fault).ok()) Mistake("inject");
    } else if (what == 78) {
      Reset();
    } else if (what == 79) {
      host_->device().Arm();
    }
    host_->Poll();
  }

  void Reset() {
    host_->ForgetLoss();
    ++resets_;
    if (const absl::Status reset = host_->device().Reset(); !reset.ok()) {
      Mistake("reset: " + reset.ToString());
    }
    // All that lived before must end now.
    for (int i = 0; i < 1000 && !host_->AllEnded() && host_->loss().ok(); ++i) host_->Poll();
    if (host_->loss().ok() && !host_->AllEnded()) Mistake("a sequence outlived a reset");
  }

  // Sequences of the same prompt begin alike, whatever disturbed them.
  void Finish() {
    Reset();
    if (mistakes_ > 0) return;
    for (const auto& [id, stream] : host_->streams()) {
      if (stream.ends != 1)
        Mistake("sequence " + std::to_string(id) + " ended " + std::to_string(stream.ends) +
                " times");
      const auto alike = host_->streams().find(1 + (id - 1) % 31);
      if (alike == host_->streams().end()) continue;
      const std::vector<uint32_t>& expected = alike->second.tokens;
      const size_t common = std::min(stream.tokens.size(), expected.size());
      if (!std::equal(stream.tokens.begin(), stream.tokens.begin() + static_cast<ptrdiff_t>(common),
                      expected.begin())) {
        Mistake("sequence " + std::to_string(id) + " says something else than its like");
      }
    }
  }

  size_t Alive() const {
    size_t alive = 0;
    for (auto it = host_->streams().rbegin(); it != host_->streams().rend(); ++it) {
      alive += it->second.ends == 0 ? 1 : 0;
      if (std::distance(host_->streams().rbegin(), it) > 200) break;
    }
    return alive;
  }

  void Report() {
    uint64_t tokens = 0;
    for (const auto& [id, stream] : host_->streams()) tokens += stream.received;
    std::printf("%-8s %6zu sequences, %8lu tokens, %5u faults, %5u resets, %d mistakes\n",
                place_.name, host_->streams().size(), static_cast<unsigned long>(tokens), faults_,
                resets_, mistakes_.load());
  }

  const Place place_;
  std::mt19937_64 random_;
  const Clock::time_point end_;
  std::unique_ptr<TestHost> host_;
  uint64_t next_id_ = 0;
  uint32_t faults_ = 0;
  uint32_t resets_ = 0;
  std::atomic<int> mistakes_{0};
};

int Main(double seconds, uint64_t seed) {
  const std::vector<Place> places = {
      {"replay", {{"content", "replay"}, {"limits.max_sequences", "24"}}},
      {"virtual", {{"compute", "synthetic"}, {"clock", "virtual"}}},
      {"thread", {{"compute", "synthetic"}}},
      {"process",
       {{"compute", "synthetic"}, {"card", "process"}, {"card_program", CARD_FOR_TEST}}}};
  int mistakes = 0;
  for (const Place& place : places) {
    const auto length = std::chrono::duration<double>(seconds / static_cast<double>(places.size()));
    const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(length);
    mistakes += Stress(place, seed, end).Run();
  }
  return mistakes == 0 ? 0 : 1;
}

}  // namespace
}  // namespace reticle::backends::hardwired

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 3;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  return reticle::backends::hardwired::Main(seconds, seed);
}
