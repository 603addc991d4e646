#include "scheduler/policy.h"

#include <algorithm>
#include <cstddef>

namespace reticle::scheduler {
namespace {

class Planner {
 public:
  Planner(const PolicySnapshot& snapshot, Plan* plan)
      : limits_(snapshot.limits),
        running_(snapshot.running),
        waiting_(snapshot.waiting),
        plan_(*plan),
        free_(snapshot.free_units) {}

  void Run() {
    plan_.work.clear();
    plan_.admit.clear();
    plan_.preempt.clear();
    plan_.preempted.assign(running_.size(), 0);
    CountUnderWay();
    Decode();
    // What comes back is for those who wait for it; nobody else may take what is left till then.
    if (short_of_memory_) free_ = 0;
    Prefill();
    const size_t fed = plan_.work.size();
    for (size_t i = 0; i < fed; ++i) AddCredits(running_[plan_.work[i].index], &plan_.work[i]);
    TopUp();
    if (!short_of_memory_) Admit();
    DropWorkOfPreempted();
  }

 private:
  uint32_t UnitsFor(uint64_t positions) const {
    return static_cast<uint32_t>((positions + limits_.unit_tokens - 1) / limits_.unit_tokens);
  }
  // Units beyond `held` that `positions` need.
  uint32_t Need(uint64_t positions, uint32_t held) const {
    const uint32_t units = UnitsFor(positions);
    return units > held ? units - held : 0;
  }
  bool Gone(size_t i) const { return running_[i].leaving || plan_.preempted[i] != 0; }

  void CountUnderWay() {
    uint64_t decoding = 0;
    uint64_t prefilling = 0;
    for (const RunningSnapshot& sequence : running_) {
      if (sequence.leaving) {
        returning_ += sequence.units;
        ++returning_slots_;
      }
      prefilling += sequence.in_flight;
      if (sequence.in_flight == 0 && sequence.credits > 0) ++decoding;
    }
    const uint64_t budget = limits_.step_tokens;
    decode_budget_ = static_cast<uint32_t>(budget - std::min(budget, decoding));
    prefill_budget_ = static_cast<uint32_t>(budget - std::min(budget, decoding + prefilling));
  }

  void Decode() {
    for (size_t i = 0; i < running_.size(); ++i) {
      const RunningSnapshot& sequence = running_[i];
      if (sequence.pending != 1 || Gone(i)) continue;
      if (sequence.event_room == 0 || sequence.output_room == 0) continue;
      if (decode_budget_ == 0) return;
      const uint32_t need = Need(uint64_t{sequence.positions} + 1, sequence.units);
      while (need > free_ + returning_ && !Gone(i)) Preempt(VictimFor(i));
      if (need > free_) {
        short_of_memory_ = true;
        continue;
      }
      if (Gone(i)) continue;
      free_ -= need;
      --decode_budget_;
      prefill_budget_ -= std::min(prefill_budget_, 1u);
      plan_.work.push_back({static_cast<uint32_t>(i), 1, 1, need});
    }
  }

  void Prefill() {
    for (size_t i = 0; i < running_.size() && prefill_budget_ > 0; ++i) {
      const RunningSnapshot& sequence = running_[i];
      if (sequence.pending < 2 || Gone(i)) continue;
      PlannedWork work = Chunk(sequence.pending, sequence);
      if (work.tokens == 0) continue;
      work.index = static_cast<uint32_t>(i);
      work.new_units = Need(uint64_t{sequence.positions} + work.tokens, sequence.units);
      if (work.new_units > free_) continue;
      free_ -= work.new_units;
      prefill_budget_ -= work.tokens;
      plan_.work.push_back(work);
    }
  }

  // The next part of a prompt of which `pending` tokens are to be fed.
  template <typename Sequence>
  PlannedWork Chunk(uint32_t pending, const Sequence& sequence) const {
    PlannedWork work;
    work.tokens = std::min({pending, limits_.max_chunk, prefill_budget_});
    if (sequence.event_per_token) work.tokens = std::min(work.tokens, sequence.event_room);
    const bool may_sample = sequence.event_room > 0 && sequence.output_room > 0;
    if (work.tokens == pending && !may_sample) --work.tokens;
    work.credits = work.tokens == pending ? 1 : 0;
    return work;
  }

  // Raises the credits of work that has one to what its stream, its length and free memory allow.
  void AddCredits(const RunningSnapshot& sequence, PlannedWork* work) {
    if (work->credits == 0) return;
    Raise(sequence, uint64_t{sequence.positions} + work->tokens - 1, sequence.units, work);
  }
  template <typename Sequence>
  void Raise(const Sequence& sequence, uint64_t base, uint32_t units, PlannedWork* work) {
    const uint32_t places = sequence.event_per_token ? work->tokens : 1;
    const uint32_t events = sequence.event_room - std::min(sequence.event_room, places) + 1;
    const uint64_t fits =
        uint64_t{limits_.unit_tokens} * (uint64_t{units} + work->new_units + free_);
    const uint64_t credits = std::min({uint64_t{limits_.run_ahead}, uint64_t{sequence.output_room},
                                       uint64_t{events}, fits - std::min(fits, base)});
    if (credits <= work->credits) return;
    const uint32_t more = Need(base + credits, units + work->new_units);
    free_ -= more;
    work->new_units += more;
    work->credits = static_cast<uint32_t>(credits);
  }

  void TopUp() {
    for (size_t i = 0; i < running_.size(); ++i) {
      const RunningSnapshot& sequence = running_[i];
      if (sequence.credits == 0 || sequence.credits > limits_.run_ahead / 2 || Gone(i)) continue;
      const uint64_t fits = uint64_t{limits_.unit_tokens} * (uint64_t{sequence.units} + free_);
      const uint64_t credits = std::min(
          {uint64_t{limits_.run_ahead - sequence.credits}, uint64_t{sequence.output_room},
           uint64_t{sequence.event_room}, fits - std::min<uint64_t>(fits, sequence.positions)});
      if (credits == 0) continue;
      const uint32_t need = Need(sequence.positions + credits, sequence.units);
      free_ -= need;
      plan_.work.push_back({static_cast<uint32_t>(i), 0, static_cast<uint32_t>(credits), need});
    }
  }

  void Admit() {
    size_t active = running_.size() - returning_slots_;
    uint32_t slots = limits_.max_running - std::min<size_t>(limits_.max_running, running_.size());
    for (size_t i = 0; i < waiting_.size() && prefill_budget_ > 0; ++i) {
      const WaitingSnapshot& sequence = waiting_[i];
      if (!sequence.ready) continue;
      PlannedWork work = Chunk(sequence.tokens - sequence.cached, sequence);
      if (work.tokens == 0) continue;
      const uint32_t held = sequence.cached / limits_.unit_tokens;
      const uint32_t need = Need(sequence.tokens, held);
      const uint64_t charge =
          uint64_t{need} + sequence.cached_free_units + (active > 0 ? limits_.reserve_units : 0);
      if (slots == 0 || charge > free_) {
        MakeRoomFor(sequence, slots, uint64_t{need} + sequence.cached_free_units);
        return;
      }
      work.index = static_cast<uint32_t>(i);
      work.new_units = need;
      free_ -= need + sequence.cached_free_units;
      prefill_budget_ -= work.tokens;
      if (work.credits > 0) {
        Raise(sequence, uint64_t{sequence.cached} + work.tokens - 1, held, &work);
      }
      plan_.admit.push_back(work);
      --slots;
      ++active;
    }
  }

  // Whoever may be preempted so that a waiting sequence of `priority` can be admitted.
  bool YieldsTo(size_t i, int32_t priority) const {
    return !Gone(i) && (running_[i].stalled || running_[i].priority > priority);
  }

  void MakeRoomFor(const WaitingSnapshot& sequence, uint32_t slots, uint64_t charge) {
    const auto enough = [&](uint64_t units, uint64_t freed_slots, size_t left) {
      return slots + returning_slots_ + freed_slots > 0 &&
             charge + (left > 0 ? limits_.reserve_units : 0) <= free_ + returning_ + units;
    };
    size_t active = 0;
    uint64_t yielding = 0;
    size_t yielders = 0;
    for (size_t i = 0; i < running_.size(); ++i) {
      if (Gone(i)) continue;
      ++active;
      if (!YieldsTo(i, sequence.priority)) continue;
      yielding += running_[i].units;
      ++yielders;
    }
    const size_t admitted = plan_.admit.size();
    if (!enough(yielding, yielders, active - yielders + admitted)) return;
    for (const bool stalled : {true, false}) {
      for (size_t i = running_.size(); i > 0; --i) {
        if (enough(0, 0, active + admitted)) return;
        if (running_[i - 1].stalled != stalled || !YieldsTo(i - 1, sequence.priority)) continue;
        Preempt(i - 1);
        --active;
      }
    }
  }

  // The last stalled sequence, or else the last one not ahead of `asking`.
  size_t VictimFor(size_t asking) const {
    for (size_t i = running_.size(); i > 0; --i) {
      if (running_[i - 1].stalled && !Gone(i - 1)) return i - 1;
    }
    size_t last = running_.size() - 1;
    while (last > asking && Gone(last)) --last;
    return last;
  }

  void Preempt(size_t i) {
    plan_.preempted[i] = 1;
    plan_.preempt.push_back(static_cast<uint32_t>(i));
    returning_ += running_[i].units;
    ++returning_slots_;
  }

  void DropWorkOfPreempted() {
    if (plan_.preempt.empty()) return;
    std::erase_if(plan_.work,
                  [this](const PlannedWork& work) { return plan_.preempted[work.index] != 0; });
  }

  const PolicyLimits& limits_;
  const std::vector<RunningSnapshot>& running_;
  const std::vector<WaitingSnapshot>& waiting_;
  Plan& plan_;
  uint32_t free_;
  uint64_t returning_ = 0;  // units of those that leave
  size_t returning_slots_ = 0;
  uint32_t decode_budget_ = 0;
  uint32_t prefill_budget_ = 0;
  bool short_of_memory_ = false;
};

}  // namespace

void MakePlan(const PolicySnapshot& snapshot, Plan* plan) { Planner(snapshot, plan).Run(); }

}  // namespace reticle::scheduler
