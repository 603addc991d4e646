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
    slots_ = limits_.max_running - std::min<size_t>(limits_.max_running, running_.size());
    active_ = running_.size() - returning_slots_;
    Class each;
    while (NextClass(&each)) PlanClass(each);
    DropWorkOfPreempted();
  }

 private:
  // The sequences of one priority: [running_begin, running_end) and likewise the waiting.
  struct Class {
    size_t running_begin = 0, running_end = 0, waiting_begin = 0, waiting_end = 0;
  };

  bool NextClass(Class* each) const {
    each->running_begin = each->running_end;
    each->waiting_begin = each->waiting_end;
    const bool runs = each->running_begin < running_.size();
    const bool waits = each->waiting_begin < waiting_.size();
    if (!runs && !waits) return false;
    const int32_t priority = !waits  ? running_[each->running_begin].priority
                             : !runs ? waiting_[each->waiting_begin].priority
                                     : std::min(running_[each->running_begin].priority,
                                                waiting_[each->waiting_begin].priority);
    while (each->running_end < running_.size() &&
           running_[each->running_end].priority <= priority) {
      ++each->running_end;
    }
    while (each->waiting_end < waiting_.size() &&
           waiting_[each->waiting_end].priority <= priority) {
      ++each->waiting_end;
    }
    return true;
  }

  void PlanClass(const Class& each) {
    const size_t planned = plan_.work.size();
    Decode(each);
    // What comes back is for those who wait for it; nobody else may take what is left till then.
    if (short_of_memory_) free_ = 0;
    const uint32_t before = prefill_budget_;
    Prefill(each);
    const size_t fed = plan_.work.size();
    for (size_t i = planned; i < fed; ++i) {
      AddCredits(running_[plan_.work[i].index], &plan_.work[i]);
    }
    TopUp(each);
    if (!short_of_memory_ && !held_up_) Admit(each);
    // Prompts of this priority go before the decoding of worse ones.
    if (prefill_budget_ < before) decode_budget_ = std::min(decode_budget_, prefill_budget_);
  }

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

  void Decode(const Class& each) {
    for (size_t i = each.running_begin; i < each.running_end; ++i) {
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

  void Prefill(const Class& each) {
    uint32_t kept = 0;
    for (size_t i = each.waiting_begin; i < each.waiting_end && kept == 0; ++i) {
      // A tenant below its share does not wait for all of the others' prompts.
      if (waiting_[i].below_share && waiting_[i].ready) kept = prefill_budget_ / 2;
    }
    prefill_budget_ -= kept;
    for (const bool surplus : {false, true}) PrefillSome(each, surplus);
    prefill_budget_ += kept;
  }

  void PrefillSome(const Class& each, bool surplus) {
    for (size_t i = each.running_begin; i < each.running_end && prefill_budget_ > 0; ++i) {
      const RunningSnapshot& sequence = running_[i];
      if (sequence.pending < 2 || Gone(i) || sequence.surplus != surplus) continue;
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

  void TopUp(const Class& each) {
    for (size_t i = each.running_begin; i < each.running_end; ++i) {
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

  void Admit(const Class& each) {
    for (size_t i = each.waiting_begin; i < each.waiting_end && prefill_budget_ > 0; ++i) {
      const WaitingSnapshot& sequence = waiting_[i];
      if (!sequence.ready) continue;
      PlannedWork work = Chunk(sequence.tokens - sequence.cached, sequence);
      if (work.tokens == 0) continue;
      const uint32_t held = sequence.cached / limits_.unit_tokens;
      const uint32_t need = Need(sequence.tokens, held);
      const uint64_t charge =
          uint64_t{need} + sequence.cached_free_units + (active_ > 0 ? limits_.reserve_units : 0);
      const uint32_t kept = sequence.priority >= limits_.yield_priority ? limits_.kept_slots : 0;
      if (held_up_ || slots_ <= kept || charge > free_) {
        held_up_ = true;
        const uint64_t units = uint64_t{need} + sequence.cached_free_units;
        if (!MakeRoomFor(sequence, units) || !sequence.below_share) return;
        // The next tenant below its share may have room made for it in the same step.
        promised_units_ += units;
        ++promised_slots_;
        continue;
      }
      work.index = static_cast<uint32_t>(i);
      work.new_units = need;
      free_ -= need + sequence.cached_free_units;
      prefill_budget_ -= work.tokens;
      if (work.credits > 0) {
        Raise(sequence, uint64_t{sequence.cached} + work.tokens - 1, held, &work);
      }
      plan_.admit.push_back(work);
      --slots_;
      ++active_;
    }
  }

  // Whoever may be preempted so that `waiting` can be admitted.
  bool YieldsTo(size_t i, const WaitingSnapshot& waiting) const {
    const RunningSnapshot& running = running_[i];
    if (Gone(i)) return false;
    return running.stalled || running.priority > waiting.priority ||
           (running.priority == waiting.priority && running.surplus && waiting.below_share);
  }

  // Whether there is room, or will be when those have left that it preempts.
  bool MakeRoomFor(const WaitingSnapshot& sequence, uint64_t charge) {
    const auto enough = [&](uint64_t units, uint64_t freed_slots, size_t left) {
      return slots_ + returning_slots_ + freed_slots > promised_slots_ &&
             promised_units_ + charge + (left > 0 ? limits_.reserve_units : 0) <=
                 free_ + returning_ + units;
    };
    size_t active = 0;
    uint64_t yielding = 0;
    size_t yielders = 0;
    for (size_t i = 0; i < running_.size(); ++i) {
      if (Gone(i)) continue;
      ++active;
      if (!YieldsTo(i, sequence)) continue;
      yielding += running_[i].units;
      ++yielders;
    }
    const size_t admitted = plan_.admit.size();
    if (!enough(yielding, yielders, active - yielders + admitted)) return false;
    for (const bool stalled : {true, false}) {
      for (size_t i = running_.size(); i > 0; --i) {
        if (enough(0, 0, active + admitted)) return true;
        if (running_[i - 1].stalled != stalled || !YieldsTo(i - 1, sequence)) continue;
        Preempt(i - 1);
        --active;
      }
    }
    return true;
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
  bool held_up_ = false;  // somebody waits for room; nobody overtakes
  uint32_t slots_ = 0;
  size_t active_ = 0;
  uint64_t promised_units_ = 0;  // to those for whom room is made
  uint64_t promised_slots_ = 0;
};

}  // namespace

void MakePlan(const PolicySnapshot& snapshot, Plan* plan) { Planner(snapshot, plan).Run(); }

}  // namespace reticle::scheduler
