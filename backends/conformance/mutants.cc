#include "backends/conformance/mutants.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>

#include "backends/abi/driver_support.h"
#include "backends/fake/fake_device.h"

namespace reticle::backends::conformance {
namespace {

const reticle_device_api& Fake() { return *fake::FakeDeviceApi(); }

template <typename Match>
void Drop(std::vector<reticle_completion>& completions, Match match) {
  std::erase_if(completions, match);
}

uint32_t Live(reticle_device* device) {
  reticle_stats stats{};
  stats.struct_size = sizeof(stats);
  Fake().stats(device, &stats, nullptr);
  return stats.sequences;
}

std::vector<Mutant> MakeMutants() {
  std::vector<Mutant> mutants;
  const auto add = [&](const char* name, const char* caught_by) -> Mutant& {
    mutants.emplace_back();
    mutants.back().name = name;
    mutants.back().caught_by = caught_by;
    return mutants.back();
  };
  using Completions = std::vector<reticle_completion>;
  using Completion = reticle_completion;

  // ---- Ends ----
  add("loses_cancelled_ends", "LifecycleConformance.CancelGivesOneEndAtAnyTime").on_completions =
      [](Completions& all) {
        Drop(all, [](const Completion& c) { return c.finish == RETICLE_FINISH_CANCELLED; });
      };
  add("ends_twice", "LifecycleConformance.EverySequenceEndsOnceUnderRandomWork").on_completions =
      [](Completions& all) {
        const size_t count = all.size();
        for (size_t i = 0; i < count; ++i) {
          if (all[i].finish != RETICLE_FINISH_NONE) all.push_back(all[i]);
        }
      };
  add("goes_on_behind_a_stop_id", "SamplingConformance.AStopIdEndsTheSequence").on_completions =
      [](Completions& all) {
        for (Completion& c : all) {
          if (c.finish == RETICLE_FINISH_STOP_ID) c.finish = RETICLE_FINISH_NONE;
        }
      };
  add("mistakes_the_context_limit", "LifecycleConformance.TheContextLimitEndsASequence")
      .on_completions = [](Completions& all) {
    for (Completion& c : all) {
      if (c.finish == RETICLE_FINISH_CONTEXT_LIMIT) c.finish = RETICLE_FINISH_STOP_ID;
    }
  };
  add("loses_ends_of_a_reset", "LifecycleConformance.ResetEndsAllAndTheDeviceGoesOn")
      .on_completions = [](Completions& all) {
    Drop(all, [](const Completion& c) { return c.status == RETICLE_ABORTED; });
  };
  add("reset_does_nothing", "LifecycleConformance.ResetEndsAllAndTheDeviceGoesOn").reset =
      [](reticle_device*) { return RETICLE_OK; };
  add("cancels_strangers", "LifecycleConformance.CancelKnowsWhichSequencesLive").cancel =
      [](reticle_device* device, uint64_t sequence, reticle_error*) -> int32_t {
    Fake().cancel(device, sequence, nullptr);
    return RETICLE_OK;
  };
  add("never_cancels", "LifecycleConformance.CancelGivesOneEndAtAnyTime").cancel =
      [](reticle_device*, uint64_t, reticle_error*) -> int32_t { return RETICLE_OK; };

  // ---- Completions ----
  add("forgets_prefills", "LifecycleConformance.PrefillWithoutCreditsSamplesNothing")
      .on_completions = [](Completions& all) {
    Drop(all, [](const Completion& c) { return c.kind == RETICLE_COMPLETION_PREFILL; });
  };
  add("tokens_before_their_prefill", "LifecycleConformance.GeneratesTheTokensThatWereGranted")
      .on_completions = [](Completions& all) {
    for (size_t i = 0; i + 1 < all.size(); ++i) {
      if (all[i].kind == RETICLE_COMPLETION_PREFILL &&
          all[i + 1].kind == RETICLE_COMPLETION_TOKEN) {
        std::swap(all[i], all[i + 1]);
      }
    }
  };
  add("wrong_tag", "LifecycleConformance.GeneratesTheTokensThatWereGranted").on_completions =
      [](Completions& all) {
        for (Completion& c : all) c.tag = 0;
      };
  add("wrong_position", "LifecycleConformance.GeneratesTheTokensThatWereGranted").on_completions =
      [](Completions& all) {
        for (Completion& c : all) c.position += c.kind == RETICLE_COMPLETION_TOKEN ? 1 : 0;
      };
  add("wrong_credits_left", "LifecycleConformance.GeneratesTheTokensThatWereGranted")
      .on_completions = [](Completions& all) {
    for (Completion& c : all) c.credits_left = 0;
  };
  add("device_time_goes_back", "LifecycleConformance.GeneratesTheTokensThatWereGranted")
      .on_completions = [](Completions& all) {
    static uint64_t time = 1u << 30;
    for (Completion& c : all) c.device_time_ns = --time;
  };
  add("one_token_too_many", "LifecycleConformance.CreditsAreSpentAndNoMore").on_work =
      [](reticle_device*, reticle_work& work, reticle_sampling&) {
        if (work.decode_credits == 8) ++work.decode_credits;
      };

  // ---- Determinism ----
  add("the_batch_matters", "InvarianceConformance.TheBatchDoesNotMatter").on_work =
      [](reticle_device* device, reticle_work&, reticle_sampling& params) {
        params.seed += Live(device);
      };
  add("chunks_matter", "InvarianceConformance.ChunksOfThePromptDoNotMatter").on_work =
      [](reticle_device*, reticle_work& work, reticle_sampling& params) {
        params.seed += work.token_count;
      };
  add("earlier_sequences_matter", "InvarianceConformance.TheSameRequestGivesTheSameTokens")
      .on_work = [](reticle_device*, reticle_work& work, reticle_sampling& params) {
    params.seed += work.sequence;
  };
  add("grants_matter", "InvarianceConformance.GrantsOfCreditsDoNotMatter").on_work =
      [](reticle_device*, reticle_work& work, reticle_sampling& params) {
        params.seed += work.decode_credits;
      };
  add("only_output_counts_for_min_tokens", "SamplingConformance.StopIdsWaitForMinTokens").on_work =
      [](reticle_device*, reticle_work& work, reticle_sampling& params) {
        params.prompt_tokens = work.position + work.token_count;
      };
  add("block_ids_matter", "InvarianceConformance.WhichBlocksHoldTheKvDoesNotMatter").on_work =
      [](reticle_device*, reticle_work& work, reticle_sampling& params) {
        if (work.kv_block_count > 0) params.seed += work.kv_blocks[0];
      };
  add("reads_another_prefix", "InvarianceConformance.APrefixIsSharedOrRefused").on_work =
      [](reticle_device*, reticle_work& work, reticle_sampling&) {
        static std::deque<std::vector<uint32_t>> tables;
        if (work.kv_block_count < 2 || work.position == 0) return;
        tables.emplace_back(work.kv_blocks, work.kv_blocks + work.kv_block_count);
        tables.back()[0] = tables.back()[1];
        work.kv_blocks = tables.back().data();
      };

  // ---- Sampling ----
  const auto on_params = [&](const char* name, const char* caught_by,
                             void (*change)(reticle_sampling&)) {
    add(name, caught_by).on_work = [change](reticle_device*, reticle_work&,
                                            reticle_sampling& params) { change(params); };
  };
  on_params("ignores_the_seed", "SamplingConformance.SeedsGiveTheirOwnTokens",
            [](reticle_sampling& p) { p.seed = 0; });
  on_params("cuts_the_seed", "SamplingConformance.SeedsGiveTheirOwnTokens",
            [](reticle_sampling& p) { p.seed &= 0xFFFFFFFF; });
  on_params("ignores_stop_ids", "SamplingConformance.AStopIdEndsTheSequence",
            [](reticle_sampling& p) { p.stop_id_count = 0; });
  on_params("ignores_min_tokens", "SamplingConformance.StopIdsWaitForMinTokens",
            [](reticle_sampling& p) { p.min_tokens = 0; });
  on_params("ignores_logit_bias", "SamplingConformance.LogitBiasDecides",
            [](reticle_sampling& p) { p.logit_bias_count = 0; });
  on_params("ignores_presence", "SamplingConformance.PenaltiesForbidWhatWasSaid",
            [](reticle_sampling& p) { p.presence_penalty = 0; });
  on_params("ignores_frequency", "SamplingConformance.PenaltiesForbidWhatWasSaid",
            [](reticle_sampling& p) { p.frequency_penalty = 0; });
  on_params("ignores_repetition", "SamplingConformance.RepetitionPenaltyReachesThePrompt",
            [](reticle_sampling& p) { p.repetition_penalty = 1; });
  on_params("prompt_counts_as_output", "SamplingConformance.PenaltiesForbidWhatWasSaid",
            [](reticle_sampling& p) {
              if (p.presence_penalty != 0 || p.frequency_penalty != 0) p.prompt_tokens = 0;
            });
  on_params("ignores_temperature", "SamplingConformance.FirstTokensFollowTheReportedProbabilities",
            [](reticle_sampling& p) { p.temperature = 0; });
  on_params("too_hot", "SamplingConformance.FirstTokensFollowTheReportedProbabilities",
            [](reticle_sampling& p) { p.temperature *= 3; });
  on_params("ignores_top_k", "SamplingConformance.TheNarrowestChoicesAreGreedy",
            [](reticle_sampling& p) { p.top_k = 0; });
  on_params("ignores_top_p", "SamplingConformance.TheNarrowestChoicesAreGreedy",
            [](reticle_sampling& p) { p.top_p = 1; });
  on_params("ignores_min_p", "SamplingConformance.TheNarrowestChoicesAreGreedy",
            [](reticle_sampling& p) { p.min_p = 0; });
  add("ignores_masks", "SamplingConformance.AMaskAllowsOnlyItsTokens").on_work =
      [](reticle_device*, reticle_work& work, reticle_sampling&) { work.token_mask = nullptr; };
  add("wrong_logprobs", "SamplingConformance.LogprobsAreThoseOfTheModel").on_completions =
      [](Completions& all) {
        for (Completion& c : all) c.logprob *= 2;
      };
  add("wrong_ranks", "SamplingConformance.LogprobsAreThoseOfTheModel").on_completions =
      [](Completions& all) {
        for (Completion& c : all) ++c.rank;
      };
  add("forgets_the_list", "SamplingConformance.LogprobsAreThoseOfTheModel").on_completions =
      [](Completions& all) {
        for (Completion& c : all) c.top_count = 0;
      };
  add("shifts_prompt_logprobs", "SamplingConformance.PromptLogprobsEqualThoseOfDecoding")
      .on_completions = [](Completions& all) {
    for (Completion& c : all) c.position += c.kind == RETICLE_COMPLETION_PROMPT_LOGPROB ? 1 : 0;
  };
  add("loses_prompt_logprobs_at_borders", "SamplingConformance.PromptLogprobsEqualThoseOfDecoding")
      .on_work = [](reticle_device*, reticle_work& work, reticle_sampling&) {
    work.next_token = RETICLE_NO_TOKEN;
  };
  add("ignores_a_missing_feature", "SamplingConformance.LogitBiasDecides").on_describe =
      [](reticle_capabilities& caps) { caps.features &= ~RETICLE_FEATURE_LOGIT_BIAS; };

  // ---- Refusals ----
  add("accepts_everything", "RefusalConformance.*").on_submitted =
      [](reticle_device*, const reticle_work&, size_t count, size_t& accepted, int32_t& code) {
        accepted = count;
        code = RETICLE_OK;
      };
  add("refusals_leave_traces", "RefusalConformance.BadItemsAreRefusedAndLeaveNoTrace")
      .on_submitted = [](reticle_device* device, const reticle_work& work, size_t, size_t&,
                         int32_t& code) {
    if (code == RETICLE_OK || work.token_count == 0) return;
    const uint32_t token = 0;
    reticle_work trace{};
    trace.struct_size = sizeof(trace);
    trace.sequence = work.sequence;
    trace.tokens = &token;
    trace.token_count = 1;
    trace.kv_blocks = work.kv_blocks;
    trace.kv_block_count = work.kv_block_count;
    size_t accepted = 0;
    Fake().submit(device, &trace, sizeof(trace), 1, &accepted, nullptr);
  };
  add("refuses_with_the_wrong_code", "RefusalConformance.*").on_submitted =
      [](reticle_device*, const reticle_work&, size_t, size_t&, int32_t& code) {
        if (code != RETICLE_OK) code = RETICLE_INTERNAL;
      };
  add("counts_refused_items", "RefusalConformance.ItemsBehindARefusedOneHaveNoEffect")
      .on_submitted = [](reticle_device*, const reticle_work&, size_t count, size_t& accepted,
                         int32_t&) { accepted = count; };
  add("says_nothing", "RefusalConformance.*").silent = true;
  add("takes_any_position", "RefusalConformance.ASequenceGoesOnWhereItStands").on_work =
      [](reticle_device*, reticle_work& work, reticle_sampling&) {
        if (work.position == 3 || work.position == 5) work.position = 4;
      };
  add("holds_more_sequences", "LifecycleConformance.MoreSequencesThanFitAreRefusedUntilOneEnds")
      .on_describe = [](reticle_capabilities& caps) { caps.max_sequences -= 1; };
  add("holds_more_credits", "LifecycleConformance.MoreCreditsThanOneMayHoldAreRefused")
      .on_describe = [](reticle_capabilities& caps) { caps.max_decode_credits -= 1; };
  add("takes_longer_chunks", "RefusalConformance.TheLongestChunkIsALimit").on_describe =
      [](reticle_capabilities& caps) { caps.max_prefill_chunk = 100; };
  add("ignores_its_limits", "LifecycleConformance.HonoursSmallerLimits").on_describe =
      [](reticle_capabilities& caps) { caps.context_limit = 4096; };
  add("insane_capabilities", "LifecycleConformance.DescribeIsConstant").on_describe =
      [](reticle_capabilities& caps) { caps.vocab_size = 0; };
  add("describes_itself_anew", "LifecycleConformance.DescribeIsConstant").on_describe =
      [](reticle_capabilities& caps) {
        static uint64_t swap_ns = 0;
        caps.adapter_swap_ns = ++swap_ns;
      };

  // ---- Structs, waiting, watching ----
  add("overruns_outputs", "StructsConformance.OutputStructs*").overruns_outputs = true;
  add("ignores_stride", "StructsConformance.CompletionsAreWrittenAtTheHostsStride").ignores_stride =
      true;
  add("reads_beyond", "StructsConformance.WhatAnOlderHost*").reads_beyond = true;
  add("sends_no_event", "WatchingConformance.ArmWakesWhoeverWaits").arm =
      [](reticle_device*) -> int32_t { return 0; };
  add("stats_go_back", "WatchingConformance.OtherThreadsMayWatch").on_stats =
      [](reticle_stats& stats) { stats.decode_tokens = (1ull << 40) - stats.decode_tokens; };
  add("counts_nothing", "WatchingConformance.StatsCountTheWork").on_stats =
      [](reticle_stats& stats) { stats.decode_tokens = 0; };
  add("forgets_the_dead", "LifecycleConformance.GeneratesTheTokensThatWereGranted").on_stats =
      [](reticle_stats& stats) { stats.sequences = 1; };
  return mutants;
}

const Mutant* g_mutant = nullptr;

int32_t Describe(reticle_device* device, reticle_capabilities* capabilities, reticle_error* error) {
  reticle_capabilities whole{};
  whole.struct_size = sizeof(whole);
  const int32_t code = Fake().describe(device, &whole, error);
  if (g_mutant->on_describe) g_mutant->on_describe(whole);
  WriteStruct(whole, capabilities,
              g_mutant->overruns_outputs ? sizeof(whole) : capabilities->struct_size);
  return code;
}

int32_t Submit(reticle_device* device, const reticle_work* work, size_t stride, size_t count,
               size_t* accepted, reticle_error* error) {
  *accepted = 0;
  for (size_t i = 0; i < count; ++i) {
    const reticle_work* from = StridedAt(work, stride, i);
    const size_t room = g_mutant->reads_beyond ? sizeof(reticle_work) : stride;
    reticle_work item{};
    std::memcpy(static_cast<void*>(&item), from,
                std::min({g_mutant->reads_beyond ? room : from->struct_size, room, sizeof(item)}));
    item.struct_size = sizeof(item);
    reticle_sampling params{};
    if (item.sampling != nullptr) {
      const size_t size = g_mutant->reads_beyond ? sizeof(params) : item.sampling->struct_size;
      std::memcpy(static_cast<void*>(&params), item.sampling, std::min(size, sizeof(params)));
      params.struct_size = sizeof(params);
      item.sampling = &params;
    }
    if (g_mutant->on_work) g_mutant->on_work(device, item, params);
    size_t taken = 0;
    int32_t code =
        Fake().submit(device, &item, sizeof(item), 1, &taken, g_mutant->silent ? nullptr : error);
    *accepted += taken;
    if (g_mutant->on_submitted) g_mutant->on_submitted(device, *from, count, *accepted, code);
    if (code != RETICLE_OK) return code;
  }
  return RETICLE_OK;
}

int32_t Poll(reticle_device* device, reticle_completion* completions, size_t stride,
             size_t capacity, size_t* count, reticle_error* error) {
  // What a hook added beyond the capacity waits here.
  static std::vector<reticle_completion> waiting;
  std::vector<reticle_completion> batch(capacity);
  size_t polled = 0;
  const int32_t code =
      waiting.empty()
          ? Fake().poll(device, batch.data(), sizeof(reticle_completion), capacity, &polled, error)
          : RETICLE_OK;
  batch.resize(polled);
  if (g_mutant->on_completions) g_mutant->on_completions(batch);
  waiting.insert(waiting.end(), batch.begin(), batch.end());
  *count = std::min(capacity, waiting.size());
  for (size_t i = 0; i < *count; ++i) {
    const size_t step = g_mutant->ignores_stride ? sizeof(reticle_completion) : stride;
    WriteStruct(waiting[i], StridedAt(completions, step, i), stride);
  }
  waiting.erase(waiting.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(*count));
  return code;
}

int32_t Arm(reticle_device* device) {
  return g_mutant->arm ? g_mutant->arm(device) : Fake().arm(device);
}

int32_t Cancel(reticle_device* device, uint64_t sequence, reticle_error* error) {
  return g_mutant->cancel ? g_mutant->cancel(device, sequence, error)
                          : Fake().cancel(device, sequence, error);
}

int32_t Stats(reticle_device* device, reticle_stats* stats, reticle_error* error) {
  reticle_stats whole{};
  whole.struct_size = sizeof(whole);
  const int32_t code = Fake().stats(device, &whole, error);
  if (g_mutant->on_stats) g_mutant->on_stats(whole);
  WriteStruct(whole, stats, g_mutant->overruns_outputs ? sizeof(whole) : stats->struct_size);
  return code;
}

int32_t Reset(reticle_device* device, reticle_error* error) {
  return g_mutant->reset ? g_mutant->reset(device) : Fake().reset(device, error);
}

}  // namespace

const std::vector<Mutant>& Mutants() {
  static const auto* const mutants = new std::vector<Mutant>(MakeMutants());
  return *mutants;
}

const reticle_device_api* MutantApi(const Mutant& mutant) {
  g_mutant = &mutant;
  static const reticle_device_api* const api = [] {
    auto* made = new reticle_device_api(Fake());
    made->driver_name = "mutant";
    made->describe = Describe;
    made->submit = Submit;
    made->poll = Poll;
    made->arm = Arm;
    made->cancel = Cancel;
    made->stats = Stats;
    made->reset = Reset;
    return made;
  }();
  return api;
}

}  // namespace reticle::backends::conformance
