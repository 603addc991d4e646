/* A whole device driver in C11, built from reticle_device.h alone.
 *
 * The "device" is a little predictor over bytes (token ids 0 .. 255): after a token it says what
 * followed that token the last time in the same sequence, and the next byte value if the token is
 * new. That is greedy decoding of a real, if tiny, model: every output token depends on the tokens
 * before it and on nothing else.
 *
 * Shape: the device owns its memory (slots), runs ahead for up to 32 tokens, and computes inside
 * poll, straight into the host's completions; it needs no thread, no queue and no descriptor. It
 * offers reset. It has no sampling but greedy, so everything else is refused by name.
 *
 * Threads: only describe, stats and health may come from any thread. The capabilities are constant
 * and the counters atomic, so no lock is needed.
 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reticle_device.h"

enum {
  kVocabSize = 256,
  kModelContext = 1024,
  kDefaultSequences = 8,
  kMostSequences = 64,
  kMostCredits = 32,
  kMostStopIds = 8,
  kQueuedItems = 8
};

typedef enum { kFree, kAlive, kEnded } slot_state;

/* An accepted order that waits to be carried out. */
typedef struct item {
  uint64_t tag;
  uint32_t token_count;
  uint32_t credits;
} item;

typedef struct slot {
  slot_state state;
  uint64_t sequence;
  uint64_t tag;         /* of the last item that was carried out */
  uint32_t* tokens;     /* context_limit of them: fed, or queued to be fed */
  uint32_t token_count; /* in `tokens`; the sequence stands here */
  uint32_t fed;         /* of those, how many the model has seen */
  uint32_t credits;     /* granted and not spent, queued items included */
  bool has_sampled;     /* last_token was reported and is not fed yet */
  uint32_t last_token;
  bool has_sampling;
  uint32_t stop_ids[kMostStopIds];
  uint32_t stop_id_count;
  item items[kQueuedItems]; /* oldest first */
  uint32_t item_count;
  uint32_t finish; /* kEnded: why */
} slot;

struct reticle_device {
  reticle_capabilities capabilities;
  const reticle_host* host;
  slot slots[kMostSequences];
  uint64_t time; /* of the device's clock: one tick a token */
  atomic_uint_fast64_t device_time, prefill_tokens, decode_tokens, steps, resets;
  atomic_uint_fast32_t alive;
};

/* ==== Helpers that every driver in C needs ==== */

static int32_t fail(reticle_error* error, int32_t code, const char* format, ...) {
  if (error == NULL || error->struct_size <= offsetof(reticle_error, message)) return code;
  size_t room =
      error->struct_size < sizeof(reticle_error) ? error->struct_size : sizeof(reticle_error);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error->message, room - offsetof(reticle_error, message), format, arguments);
  va_end(arguments);
  error->struct_size = room;
  error->code = code;
  return code;
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Reads a struct of any version: what the host does not have counts as zero. */
static void read_struct(void* to, size_t size, const void* from, size_t from_size) {
  memset(to, 0, size);
  memcpy(to, from, smaller(size, from_size));
}

/* Fills a struct of any version: no further than `room`, and struct_size says how far. */
static void write_struct(void* to, size_t room, const void* from, size_t size) {
  const size_t filled = smaller(room, size);
  memcpy(to, from, filled);
  memcpy(to, &filled, sizeof(filled));
}

static slot* find(reticle_device* device, uint64_t sequence) {
  for (uint32_t i = 0; i < device->capabilities.max_sequences; ++i) {
    slot* const s = &device->slots[i];
    if (s->state != kFree && s->sequence == sequence) return s;
  }
  return NULL;
}

static slot* find_free(reticle_device* device) {
  for (uint32_t i = 0; i < device->capabilities.max_sequences; ++i) {
    if (device->slots[i].state == kFree) return &device->slots[i];
  }
  return NULL;
}

/* ==== Opening and describing ==== */

static void device_close(reticle_device* device) {
  for (uint32_t i = 0; i < kMostSequences; ++i) free(device->slots[i].tokens);
  free(device);
}

static int32_t device_open(const reticle_host* host, const reticle_device_config* given,
                           reticle_device** out, reticle_error* error) {
  *out = NULL;
  reticle_device_config config;
  read_struct(&config, sizeof(config), given, given->struct_size);
  if (config.option_count > 0) {
    return fail(error, RETICLE_INVALID_ARGUMENT, "option '%s' is not known; there are none",
                config.options[0].name);
  }
  if (config.context_limit > kModelContext || config.context_limit == 1) {
    return fail(error, RETICLE_INVALID_ARGUMENT,
                "context_limit is %" PRIu32 "; it must be in 2 .. %d", config.context_limit,
                kModelContext);
  }
  if (config.max_sequences > kMostSequences) {
    return fail(error, RETICLE_INVALID_ARGUMENT, "max_sequences is %" PRIu32 "; at most %d",
                config.max_sequences, kMostSequences);
  }
  reticle_device* const device = calloc(1, sizeof(*device));
  if (device == NULL) return fail(error, RETICLE_RESOURCE_EXHAUSTED, "no memory for a device");
  device->host = host;
  reticle_capabilities* const caps = &device->capabilities;
  caps->struct_size = sizeof(*caps);
  snprintf(caps->device_name, sizeof(caps->device_name), "example");
  snprintf(caps->device_vendor, sizeof(caps->device_vendor), "Reticle");
  snprintf(caps->model_name, sizeof(caps->model_name), "what-followed-last-time");
  caps->vocab_size = kVocabSize;
  caps->context_limit = config.context_limit != 0 ? config.context_limit : kModelContext;
  caps->max_sequences = config.max_sequences != 0 ? config.max_sequences : kDefaultSequences;
  caps->kv_mode = RETICLE_KV_DEVICE_SLOTS;
  caps->kv_token_capacity = (uint64_t)caps->max_sequences * caps->context_limit;
  caps->kv_bytes_per_token = sizeof(uint32_t);
  caps->max_prefill_chunk = caps->context_limit;
  caps->max_step_tokens = caps->context_limit;
  caps->pipeline_depth = caps->max_sequences;
  caps->max_decode_credits = kMostCredits;
  caps->features = RETICLE_FEATURE_RESET | RETICLE_FEATURE_CHEAP_POLL;
  caps->max_stop_ids = kMostStopIds;
  caps->event_fd = -1;
  for (uint32_t i = 0; i < caps->max_sequences; ++i) {
    device->slots[i].tokens = malloc(caps->context_limit * sizeof(uint32_t));
    if (device->slots[i].tokens == NULL) {
      device_close(device);
      return fail(error, RETICLE_RESOURCE_EXHAUSTED, "no memory for slot %" PRIu32, i);
    }
  }
  static const char kReady[] = "the example device is ready";
  host->log(host->context, RETICLE_LOG_DEBUG, kReady, sizeof(kReady) - 1);
  *out = device;
  return RETICLE_OK;
}

static int32_t device_describe(reticle_device* device, reticle_capabilities* capabilities,
                               reticle_error* error) {
  (void)error;
  write_struct(capabilities, capabilities->struct_size, &device->capabilities,
               sizeof(device->capabilities));
  return RETICLE_OK;
}

/* ==== Taking orders ==== */

static int32_t check_sampling(const reticle_sampling* params, reticle_error* error) {
  const struct {
    const char* name;
    float value, least, most;
  } ranges[] = {
      {"temperature", params->temperature, 0, 1e30f},
      {"top_p", params->top_p, 1e-30f, 1},
      {"min_p", params->min_p, 0, 1},
      {"repetition_penalty", params->repetition_penalty, 1e-30f, 1e30f},
      {"frequency_penalty", params->frequency_penalty, -1e30f, 1e30f},
      {"presence_penalty", params->presence_penalty, -1e30f, 1e30f},
  };
  for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); ++i) {
    if (!(ranges[i].value >= ranges[i].least && ranges[i].value <= ranges[i].most)) {
      return fail(error, RETICLE_INVALID_ARGUMENT, "%s is %g; it must be in %g .. %g",
                  ranges[i].name, (double)ranges[i].value, (double)ranges[i].least,
                  (double)ranges[i].most);
    }
  }
  const struct {
    const char* name;
    bool asked;
  } missing[] = {
      {"temperature above 0", params->temperature > 0},
      {"repetition_penalty", params->repetition_penalty != 1},
      {"frequency_penalty", params->frequency_penalty != 0},
      {"presence_penalty", params->presence_penalty != 0},
      {"logit_bias", params->logit_bias_count > 0},
      {"min_tokens", params->min_tokens > 0},
      {"logprobs", params->logprobs > 0},
  };
  for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); ++i) {
    if (missing[i].asked) {
      return fail(error, RETICLE_UNIMPLEMENTED, "this device does not offer %s", missing[i].name);
    }
  }
  if (params->stop_id_count > kMostStopIds) {
    return fail(error, RETICLE_INVALID_ARGUMENT, "stop_id_count is %" PRIu32 "; at most %d",
                params->stop_id_count, kMostStopIds);
  }
  if (params->stop_id_count > 0 && params->stop_ids == NULL) {
    return fail(error, RETICLE_INVALID_ARGUMENT, "stop_ids is NULL with a count of %" PRIu32,
                params->stop_id_count);
  }
  for (uint32_t i = 0; i < params->stop_id_count; ++i) {
    if (params->stop_ids[i] >= kVocabSize) {
      return fail(error, RETICLE_INVALID_ARGUMENT,
                  "stop_ids[%" PRIu32 "] is %" PRIu32 "; it must be below %d", i,
                  params->stop_ids[i], kVocabSize);
    }
  }
  return RETICLE_OK;
}

static int32_t check_tokens(const reticle_device* device, const slot* s, const reticle_work* work,
                            reticle_error* error) {
  const uint32_t stands_at = s != NULL ? s->token_count : 0;
  const uint32_t limit = device->capabilities.context_limit;
  const uint64_t needed =
      (uint64_t)work->position + work->token_count + (work->decode_credits > 0 ? 1 : 0);
  if (s != NULL && s->credits > 0) {
    return fail(error, RETICLE_INVALID_ARGUMENT,
                "token_count is %" PRIu32 " while the sequence holds %" PRIu32
                " credits; it must be 0",
                work->token_count, s->credits);
  }
  if (work->tokens == NULL) {
    return fail(error, RETICLE_INVALID_ARGUMENT, "tokens is NULL with a token_count of %" PRIu32,
                work->token_count);
  }
  if (work->position != stands_at) {
    return fail(error, RETICLE_INVALID_ARGUMENT, "position is %" PRIu32 "; it must be %" PRIu32,
                work->position, stands_at);
  }
  if (work->token_count > device->capabilities.max_prefill_chunk || needed > limit) {
    return fail(error, RETICLE_INVALID_ARGUMENT,
                "position %" PRIu32 " + token_count %" PRIu32
                " (+ 1 to sample) passes the context limit of %" PRIu32,
                work->position, work->token_count, limit);
  }
  for (uint32_t i = 0; i < work->token_count; ++i) {
    if (work->tokens[i] >= kVocabSize) {
      return fail(error, RETICLE_INVALID_ARGUMENT,
                  "tokens[%" PRIu32 "] is %" PRIu32 "; it must be below %d", i, work->tokens[i],
                  kVocabSize);
    }
  }
  return RETICLE_OK;
}

static int32_t check_work(const reticle_device* device, const slot* s, const reticle_work* work,
                          const reticle_sampling* params, reticle_error* error) {
  if (s != NULL && s->state == kEnded) {
    return fail(error, RETICLE_NOT_FOUND, "sequence %" PRIu64 " has ended", work->sequence);
  }
  if (s == NULL && work->token_count == 0) {
    return fail(error, RETICLE_NOT_FOUND, "sequence %" PRIu64 " is not alive", work->sequence);
  }
  if ((work->flags & ~RETICLE_WORK_PROMPT_LOGPROBS) != 0) {
    return fail(error, RETICLE_INVALID_ARGUMENT, "flags is 0x%" PRIx32 "; not all bits are known",
                work->flags);
  }
  if (work->flags != 0 || work->token_mask != NULL || work->adapter != 0) {
    return fail(error, RETICLE_UNIMPLEMENTED,
                "this device does not offer prompt log-probabilities, token_mask or adapters");
  }
  if (work->kv_blocks != NULL || work->kv_block_count != 0) {
    return fail(error, RETICLE_INVALID_ARGUMENT,
                "kv_block_count is %" PRIu32 "; this device keeps its KV by itself",
                work->kv_block_count);
  }
  const uint64_t credits = (s != NULL ? s->credits : 0) + (uint64_t)work->decode_credits;
  if (credits > kMostCredits) {
    return fail(error, RETICLE_INVALID_ARGUMENT,
                "decode_credits is %" PRIu32 "; with those held at most %d", work->decode_credits,
                kMostCredits);
  }
  if (params == NULL && work->decode_credits > 0 && (s == NULL || !s->has_sampling)) {
    return fail(error, RETICLE_INVALID_ARGUMENT, "sampling is NULL; credits need parameters");
  }
  if (work->token_count > 0) {
    const int32_t code = check_tokens(device, s, work, error);
    if (code != RETICLE_OK) return code;
  } else if (params != NULL || work->decode_credits == 0 || (s->credits == 0 && !s->has_sampled)) {
    return fail(error, RETICLE_INVALID_ARGUMENT,
                "token_count is 0; such an item only adds credits to a sequence that has sampled");
  }
  return params != NULL ? check_sampling(params, error) : RETICLE_OK;
}

static int32_t take(reticle_device* device, const reticle_work* from, size_t stride,
                    reticle_error* error) {
  if (from->struct_size < sizeof(size_t)) {
    return fail(error, RETICLE_INVALID_ARGUMENT, "struct_size of the work item is %zu",
                from->struct_size);
  }
  reticle_work work;
  read_struct(&work, sizeof(work), from, smaller(from->struct_size, stride));
  reticle_sampling storage;
  const reticle_sampling* params = NULL;
  if (work.sampling != NULL) {
    read_struct(&storage, sizeof(storage), work.sampling, work.sampling->struct_size);
    params = &storage;
  }
  slot* s = find(device, work.sequence);
  const int32_t code = check_work(device, s, &work, params, error);
  if (code != RETICLE_OK) return code;
  if (s == NULL) {
    s = find_free(device);
    if (s == NULL) {
      return fail(error, RETICLE_RESOURCE_EXHAUSTED, "all %" PRIu32 " slots are taken",
                  device->capabilities.max_sequences);
    }
    uint32_t* const tokens = s->tokens;
    memset(s, 0, sizeof(*s));
    s->tokens = tokens;
    s->state = kAlive;
    s->sequence = work.sequence;
    atomic_fetch_add(&device->alive, 1);
  }
  if (s->item_count == kQueuedItems) {
    return fail(error, RETICLE_RESOURCE_EXHAUSTED, "the sequence has %d items queued",
                kQueuedItems);
  }
  /* From here on nothing fails. */
  if (params != NULL) {
    s->has_sampling = true;
    s->stop_id_count = params->stop_id_count;
    for (uint32_t i = 0; i < params->stop_id_count; ++i) s->stop_ids[i] = params->stop_ids[i];
  }
  for (uint32_t i = 0; i < work.token_count; ++i) s->tokens[s->token_count++] = work.tokens[i];
  if (work.token_count > 0) s->has_sampled = false;
  s->credits += work.decode_credits;
  s->items[s->item_count++] = (item){work.tag, work.token_count, work.decode_credits};
  return RETICLE_OK;
}

static int32_t device_submit(reticle_device* device, const reticle_work* work, size_t stride,
                             size_t count, size_t* accepted, reticle_error* error) {
  *accepted = 0;
  for (size_t i = 0; i < count; ++i) {
    const void* const at = (const char*)work + i * stride;
    const int32_t code = take(device, at, stride, error);
    if (code != RETICLE_OK) return code;
    ++*accepted;
  }
  return RETICLE_OK;
}

static int32_t device_cancel(reticle_device* device, uint64_t sequence, reticle_error* error) {
  slot* const s = find(device, sequence);
  if (s == NULL) {
    return fail(error, RETICLE_NOT_FOUND, "sequence %" PRIu64 " is not alive", sequence);
  }
  if (s->state == kAlive) {
    s->state = kEnded;
    s->finish = RETICLE_FINISH_CANCELLED;
    atomic_fetch_sub(&device->alive, 1);
  }
  return RETICLE_OK;
}

/* ==== Computing ==== */

/* The model: what followed the last token when it came up before. */
static uint32_t predict(const slot* s) {
  const uint32_t last = s->tokens[s->fed - 1];
  for (uint32_t i = s->fed - 1; i > 0; --i) {
    if (s->tokens[i - 1] == last) return s->tokens[i];
  }
  return (last + 1) % kVocabSize;
}

static bool is_stop_id(const slot* s, uint32_t token) {
  for (uint32_t i = 0; i < s->stop_id_count; ++i) {
    if (s->stop_ids[i] == token) return true;
  }
  return false;
}

static void sample(reticle_device* device, slot* s, reticle_completion* out) {
  if (s->has_sampled) {
    s->tokens[s->token_count++] = s->last_token;
    ++s->fed;
  }
  s->last_token = predict(s);
  s->has_sampled = true;
  --s->credits;
  atomic_fetch_add(&device->decode_tokens, 1);
  out->kind = RETICLE_COMPLETION_TOKEN;
  out->token = s->last_token;
  out->position = s->fed;
  if (is_stop_id(s, s->last_token)) {
    out->finish = RETICLE_FINISH_STOP_ID;
  } else if (s->fed + 1 == device->capabilities.context_limit) {
    out->finish = RETICLE_FINISH_CONTEXT_LIMIT;
  }
  out->credits_left = out->finish == RETICLE_FINISH_NONE ? s->credits : 0;
}

/* Carries out the next thing for the sequence; false when there is nothing to report. */
static bool step(reticle_device* device, slot* s, reticle_completion* out) {
  memset(out, 0, sizeof(*out));
  out->sequence = s->sequence;
  out->device_time_ns = device->time;
  if (s->state == kEnded) {
    out->tag = s->tag;
    out->kind = RETICLE_COMPLETION_END;
    out->finish = s->finish;
    if (s->finish == RETICLE_FINISH_ERROR) {
      out->status = RETICLE_ABORTED;
      out->message = "the device was reset";
    }
    s->state = kFree;
    return true;
  }
  while (s->item_count > 0) {
    const item next = s->items[0];
    memmove(&s->items[0], &s->items[1], --s->item_count * sizeof(item));
    s->tag = next.tag;
    if (next.token_count == 0) continue;
    s->fed += next.token_count;
    device->time += next.token_count;
    atomic_fetch_add(&device->prefill_tokens, next.token_count);
    out->kind = RETICLE_COMPLETION_PREFILL;
    out->position = s->fed - 1;
    out->token_count = next.token_count;
    break;
  }
  if (out->kind == 0) {
    if (s->state != kAlive || s->credits == 0) return false;
    sample(device, s, out);
    ++device->time;
  }
  out->tag = s->tag;
  out->device_time_ns = device->time;
  out->busy_ns = 1;
  if (out->finish != RETICLE_FINISH_NONE) {
    s->state = kFree;
    atomic_fetch_sub(&device->alive, 1);
  }
  atomic_fetch_add(&device->steps, 1);
  atomic_store(&device->device_time, device->time);
  return true;
}

static int32_t device_poll(reticle_device* device, reticle_completion* completions, size_t stride,
                           size_t capacity, size_t* count, reticle_error* error) {
  (void)error;
  *count = 0;
  bool moved = true;
  while (moved) {
    moved = false;
    for (uint32_t i = 0; i < device->capabilities.max_sequences && *count < capacity; ++i) {
      slot* const s = &device->slots[i];
      reticle_completion completion;
      if (s->state == kFree || !step(device, s, &completion)) continue;
      write_struct((char*)completions + *count * stride, stride, &completion, sizeof(completion));
      ++*count;
      moved = true;
    }
  }
  return RETICLE_OK;
}

/* Without an event_fd there is nothing to arm. */
static int32_t device_arm(reticle_device* device) {
  (void)device;
  return 1;
}

/* ==== What the device does not have ==== */

static int32_t device_adapter_load(reticle_device* device, uint64_t adapter, const char* path,
                                   float scale, reticle_error* error) {
  (void)device, (void)path, (void)scale;
  return fail(error, RETICLE_UNIMPLEMENTED, "adapter %" PRIu64 ": there are no adapters", adapter);
}

static int32_t device_adapter_unload(reticle_device* device, uint64_t adapter,
                                     reticle_error* error) {
  (void)device;
  return fail(error, RETICLE_UNIMPLEMENTED, "adapter %" PRIu64 ": there are no adapters", adapter);
}

/* ==== Watching ==== */

static int32_t device_stats(reticle_device* device, reticle_stats* out, reticle_error* error) {
  (void)error;
  reticle_stats stats;
  memset(&stats, 0, sizeof(stats));
  stats.device_time_ns = atomic_load(&device->device_time);
  stats.busy_ns = stats.device_time_ns;
  stats.prefill_tokens = atomic_load(&device->prefill_tokens);
  stats.decode_tokens = atomic_load(&device->decode_tokens);
  stats.steps = atomic_load(&device->steps);
  stats.power_watts = NAN;
  stats.temperature_celsius = NAN;
  stats.slowdown_ratio = 1;
  stats.resets = atomic_load(&device->resets);
  stats.sequences = (uint32_t)atomic_load(&device->alive);
  write_struct(out, out->struct_size, &stats, sizeof(stats));
  return RETICLE_OK;
}

static int32_t device_health(reticle_device* device, reticle_health* out, reticle_error* error) {
  (void)device, (void)error;
  reticle_health health;
  memset(&health, 0, sizeof(health));
  health.state = RETICLE_HEALTH_READY;
  write_struct(out, out->struct_size, &health, sizeof(health));
  return RETICLE_OK;
}

static int32_t device_reset(reticle_device* device, reticle_error* error) {
  (void)error;
  for (uint32_t i = 0; i < device->capabilities.max_sequences; ++i) {
    slot* const s = &device->slots[i];
    if (s->state != kAlive) continue;
    s->state = kEnded;
    s->finish = RETICLE_FINISH_ERROR;
    atomic_fetch_sub(&device->alive, 1);
  }
  atomic_fetch_add(&device->resets, 1);
  return RETICLE_OK;
}

/* ==== The one exported symbol ==== */

const reticle_device_api* reticle_device_get_api(uint32_t host_abi_major, uint32_t host_abi_minor) {
  static const reticle_device_api api = {
      .struct_size = sizeof(reticle_device_api),
      .abi_major = RETICLE_DEVICE_ABI_MAJOR,
      .abi_minor = RETICLE_DEVICE_ABI_MINOR,
      .driver_name = "example",
      .driver_version = "1.0",
      .open = device_open,
      .close = device_close,
      .describe = device_describe,
      .submit = device_submit,
      .poll = device_poll,
      .arm = device_arm,
      .cancel = device_cancel,
      .adapter_load = device_adapter_load,
      .adapter_unload = device_adapter_unload,
      .stats = device_stats,
      .health = device_health,
      .reset = device_reset,
  };
  (void)host_abi_minor; /* an older host reads what it knows of our structs */
  return host_abi_major == RETICLE_DEVICE_ABI_MAJOR ? &api : NULL;
}
