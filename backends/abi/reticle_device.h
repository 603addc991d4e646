/* The Reticle device ABI: what a driver offers to the server, in C11, self-contained.
 *
 * A driver is built from this header alone. It exports one symbol, reticle_device_get_api(), which
 * returns a table of functions; the host passes a table of callbacks. Built-in backends go through
 * the same table.
 *
 * Discipline
 *  - Every struct begins with struct_size, which the side that fills the struct sets to the
 * sizeof() it was compiled with. Fields are only ever appended. A reader treats a field that lies
 * beyond struct_size as zero. Arrays of structs are passed with the stride of the side that
 * allocated them.
 *  - ABI major: incompatible; minor: appended. A driver returns NULL for a major that it does not
 * speak.
 *  - Functions that can fail return a status code numbered as absl::StatusCode and, if not OK, fill
 * *error when error is not NULL. The message names the field, the value and the limit.
 *  - Each side frees what it allocated; nothing is handed over. Pointers passed to a function are
 * valid during the call only, unless the field says otherwise.
 *  - submit, poll, arm, cancel, adapter_*, reset and close of one device are called by one thread
 * at a time (the engine thread); describe, stats and health by any thread at any time between open
 * and close. Different devices are independent.
 *  - Drivers are never unloaded. A driver throws no exception across this boundary and never ends
 * the process.
 *  - Times are nanoseconds. "Device time" is the device's own clock: monotonic, arbitrary origin.
 *
 * The life of a sequence
 *  1. It begins with the first accepted work item that names its id. The host never reuses an id on
 * a device.
 *  2. Work items feed tokens at consecutive positions (prefill, in chunks as the host likes) and
 * grant decode credits. While a sequence has credits, the device samples a token, reports it, and
 * feeds it to itself at the next position. A sampled token whose credit was the last is reported
 * but not fed: the next work item feeds it.
 *  3. It ends with exactly one completion whose `finish` is not RETICLE_FINISH_NONE: because a stop
 * id was sampled, the context limit was reached, the host cancelled it, or an error struck. After
 * that completion the driver holds nothing of the sequence, and the host may reuse its KV blocks.
 * This holds whatever happens, reset included.
 *
 * Determinism
 *  Sampling is a function of (model image, tokens before the position, sampling parameters, seed,
 * position) alone: not of the batch, of how the prompt was cut into chunks, of the number of
 * threads, nor of earlier sequences.
 *
 * Changes are listed in backends/abi/CHANGELOG.md.
 */
#ifndef RETICLE_DEVICE_H_
#define RETICLE_DEVICE_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RETICLE_DEVICE_ABI_MAJOR 1u
#define RETICLE_DEVICE_ABI_MINOR 0u

/* ==== Status ==== */

/* Numbered as absl::StatusCode. */
enum {
  RETICLE_OK = 0,
  RETICLE_CANCELLED = 1,
  RETICLE_UNKNOWN = 2,
  RETICLE_INVALID_ARGUMENT = 3,
  RETICLE_DEADLINE_EXCEEDED = 4,
  RETICLE_NOT_FOUND = 5,
  RETICLE_ALREADY_EXISTS = 6,
  RETICLE_PERMISSION_DENIED = 7,
  RETICLE_RESOURCE_EXHAUSTED = 8,
  RETICLE_FAILED_PRECONDITION = 9,
  RETICLE_ABORTED = 10,
  RETICLE_OUT_OF_RANGE = 11,
  RETICLE_UNIMPLEMENTED = 12,
  RETICLE_INTERNAL = 13,
  RETICLE_UNAVAILABLE = 14,
  RETICLE_DATA_LOSS = 15
};

/* Allocated by the host, filled by the driver. */
typedef struct reticle_error {
  size_t struct_size;
  int32_t code;      /* out: as returned */
  char message[500]; /* out: NUL-terminated UTF-8, truncated to fit */
} reticle_error;

/* ==== Host callbacks ==== */

enum {
  RETICLE_LOG_DEBUG = 0,
  RETICLE_LOG_INFO = 1,
  RETICLE_LOG_WARNING = 2,
  RETICLE_LOG_ERROR = 3
};

/* The host's services. The table lives as long as the process; the functions may be called from any
 * thread. */
typedef struct reticle_host {
  size_t struct_size;
  void* context; /* passed back as the first argument of every callback */
  /* Writes one log line of `length` bytes. Never on the token path. */
  void (*log)(void* context, int32_t level, const char* message, size_t length);
  /* The host's monotonic clock, ns. */
  uint64_t (*now_ns)(void* context);
  /* Memory of at least `size` bytes at a multiple of `alignment` (a power of two), or NULL.
   * Optional to use. */
  void* (*allocate)(void* context, size_t size, size_t alignment);
  /* Releases what allocate returned; NULL is fine. */
  void (*release)(void* context, void* memory);
} reticle_host;

/* ==== Opening and describing ==== */

enum { RETICLE_KV_TYPE_DEFAULT = 0, RETICLE_KV_TYPE_F16 = 1, RETICLE_KV_TYPE_Q8_0 = 2 };

typedef struct reticle_option {
  const char* name;  /* NUL-terminated */
  const char* value; /* NUL-terminated */
} reticle_option;

/* What to open. Zero means the driver's default in every numeric field. */
typedef struct reticle_device_config {
  size_t struct_size;
  const char*
      model_path;        /* model file or device image; NULL when the device has its model within */
  uint32_t device_index; /* which of several cards */
  uint32_t threads;      /* compute threads */
  uint32_t kv_type;      /* RETICLE_KV_TYPE_*; host-paged devices only */
  uint32_t kv_block_tokens;      /* tokens in a KV block; host-paged devices only */
  uint64_t kv_bytes;             /* memory for the KV pool, bytes */
  uint32_t context_limit;        /* tokens; must not pass the model's own */
  uint32_t max_sequences;        /* sequences alive at once */
  const reticle_option* options; /* options of this driver; an unknown name is INVALID_ARGUMENT */
  size_t option_count;
} reticle_device_config;

/* Who owns KV memory. */
enum {
  /* The host hands every work item a block table; the driver writes K and V of position p into
   * block table[p / kv_block_tokens]. Blocks may be shared between sequences as long as nobody
   * writes them. */
  RETICLE_KV_HOST_PAGED = 0,
  /* The device keeps KV by itself; up to max_sequences sequences of together kv_token_capacity
     tokens fit. */
  RETICLE_KV_DEVICE_SLOTS = 1
};

/* Features: bits of reticle_capabilities.features. */
#define RETICLE_FEATURE_TOKEN_MASK (1ull << 0)      /* reticle_work.token_mask */
#define RETICLE_FEATURE_LOGPROBS (1ull << 1)        /* reticle_sampling.logprobs */
#define RETICLE_FEATURE_PROMPT_LOGPROBS (1ull << 2) /* RETICLE_WORK_PROMPT_LOGPROBS */
#define RETICLE_FEATURE_LOGIT_BIAS (1ull << 3)
#define RETICLE_FEATURE_PENALTIES (1ull << 4) /* repetition, frequency and presence penalty */
#define RETICLE_FEATURE_MIN_P (1ull << 5)
#define RETICLE_FEATURE_TOP_P (1ull << 6)
#define RETICLE_FEATURE_TEMPERATURE (1ull << 7)
#define RETICLE_FEATURE_MIN_TOKENS (1ull << 8)
#define RETICLE_FEATURE_ADAPTERS (1ull << 9)
#define RETICLE_FEATURE_RESET (1ull << 10)
/* poll and submit cost so little (no system call, under a microsecond) that an I/O thread may drive
 * the device. */
#define RETICLE_FEATURE_CHEAP_POLL (1ull << 11)

/* Filled by describe. Constant while the device is open. */
typedef struct reticle_capabilities {
  size_t struct_size;
  char device_name[64]; /* for people and labels, such as "cpu" */
  char device_vendor[64];
  char model_name[128];   /* as the image names it; may be empty */
  char model_hash[65];    /* lower-case hex SHA-256 of the image; equal hashes give equal tokens */
  uint32_t vocab_size;    /* token ids are below this */
  uint32_t context_limit; /* positions 0 .. context_limit-1 exist */
  uint32_t max_sequences; /* sequences alive at once */
  uint32_t kv_mode;       /* RETICLE_KV_* */
  uint32_t kv_block_tokens;    /* host-paged: tokens in a block */
  uint32_t kv_block_count;     /* host-paged: block indices are below this */
  uint64_t kv_token_capacity;  /* tokens that fit in KV memory in all */
  uint64_t kv_bytes_per_token; /* for reports */
  uint32_t max_prefill_chunk;  /* tokens that one work item may feed */
  uint32_t max_step_tokens; /* tokens that the work items of one step should feed in all (a hint) */
  uint32_t pipeline_depth;  /* sequences that decode at full speed at once (a hint); 0: unknown */
  uint32_t
      max_decode_credits; /* credits that one sequence may hold; 1 when each token needs the host */
  uint64_t features;      /* RETICLE_FEATURE_* */
  uint32_t
      max_top_k; /* largest top_k that the device samples; 0: any, and no truncation is needed */
  uint32_t max_logprobs; /* largest reticle_sampling.logprobs */
  uint32_t max_stop_ids;
  uint32_t max_adapters;    /* adapters loaded at once */
  uint64_t adapter_swap_ns; /* cost of making another adapter current */
  /* A descriptor that becomes readable (eventfd semantics) after arm() when a completion is there;
   * -1: poll only. Owned by the driver, valid until close. */
  int32_t event_fd;
} reticle_capabilities;

/* ==== Work ==== */

typedef struct reticle_logit_bias {
  uint32_t token;
  float bias; /* added to the logit before everything else */
} reticle_logit_bias;

/* How tokens of a sequence are chosen. The order of operations is: logit_bias, token_mask, stop ids
 * banned below min_tokens, penalties, then (temperature > 0) temperature, top_k, top_p, min_p, and
 * a draw by a generator that is keyed by (seed, position of the sampled token). Temperature 0 takes
 * the largest logit, the lowest id among equals. Log-probabilities are those of the model:
 * log-softmax of the logits before all of this. */
typedef struct reticle_sampling {
  size_t struct_size;
  float temperature; /* 0: greedy */
  uint32_t top_k;    /* 0: no limit */
  float top_p;       /* 1: no limit; in (0, 1] */
  float min_p;       /* 0: none; keeps tokens of at least min_p times the largest probability */
  float repetition_penalty; /* 1: none; over prompt and output: positive logits are divided,
                               negative multiplied */
  float frequency_penalty;  /* 0: none; times the count of the token in the output */
  float presence_penalty;   /* 0: none; once for a token that is in the output */
  uint64_t seed;
  uint32_t
      prompt_tokens;   /* length of the client's prompt: tokens from this position on are output */
  uint32_t min_tokens; /* stop ids cannot be sampled before this many output tokens */
  const uint32_t*
      stop_ids; /* sampling one of them ends the sequence; the token itself is reported */
  uint32_t stop_id_count;
  const reticle_logit_bias* logit_bias; /* at most one entry a token */
  uint32_t logit_bias_count;
  uint32_t
      logprobs; /* 0: none; k+1: the chosen token's log-probability and the k likeliest tokens */
  /* When a penalty is set: the tokens at positions 0 .. history_count-1, up to and including the
   * last one that this work item feeds. (The device may not have seen those whose KV blocks came
   * from a cache.) Else NULL. */
  const uint32_t* history;
  uint32_t history_count;
} reticle_sampling;

/* Flags of a work item. */
#define RETICLE_WORK_PROMPT_LOGPROBS \
  (1u                                \
   << 0) /* report a PROMPT_LOGPROB completion for each fed token but the first of the sequence */

/* One order to one sequence. All that it points to is copied before submit returns. */
typedef struct reticle_work {
  size_t struct_size;
  uint64_t sequence;
  uint64_t tag; /* the host's; returned in every completion that follows from this item until the
                   next one */
  uint32_t flags;
  /* Tokens to feed at positions position .. position+token_count-1. `position` is that of the first
   * token that has no KV yet: 0, or behind the shared blocks of a cached prefix, or where the
   * sequence stands. token_count may be 0 only to add credits while the sequence still holds some.
   */
  uint32_t position;
  const uint32_t* tokens;
  uint32_t token_count;
  /* Added to the sequence's credits. 0: prefill only, nothing is sampled after the last token. */
  uint32_t decode_credits;
  /* Host-paged: the whole block table of the sequence, which must cover position + token_count +
   * credits - 1 positions. NULL: as in the sequence's last item. */
  const uint32_t* kv_blocks;
  uint32_t kv_block_count;
  /* NULL: as in the sequence's last item that had one. Needed by the first item that grants
   * credits. */
  const reticle_sampling* sampling;
  /* (vocab_size + 31) / 32 words; bit i of word j allows token 32 j + i. Holds for the next sampled
   * token only, so the item must grant exactly one credit. NULL: all allowed. */
  const uint32_t* token_mask;
  uint64_t adapter; /* 0: none; else as loaded. Fixed by the sequence's first item. */
  /* With RETICLE_WORK_PROMPT_LOGPROBS: how many likeliest tokens to report, and the token that
   * stands at position + token_count (UINT32_MAX: none), whose log-probability this item can give.
   */
  uint32_t prompt_logprobs;
  uint32_t next_token;
} reticle_work;

/* ==== Completions ==== */

enum {
  RETICLE_COMPLETION_TOKEN = 1, /* a token was sampled */
  RETICLE_COMPLETION_PREFILL =
      2, /* the tokens of a work item are fed; comes before the item's first TOKEN */
  RETICLE_COMPLETION_PROMPT_LOGPROB = 3, /* log-probability of a prompt token */
  RETICLE_COMPLETION_END = 4             /* nothing but the end (cancelled, error, reset) */
};

enum {
  RETICLE_FINISH_NONE = 0,
  RETICLE_FINISH_STOP_ID = 1,       /* on the TOKEN that is a stop id */
  RETICLE_FINISH_CONTEXT_LIMIT = 2, /* on the TOKEN behind which there is no position left */
  RETICLE_FINISH_CANCELLED = 3,
  RETICLE_FINISH_ERROR = 4 /* status and message say why */
};

typedef struct reticle_token_logprob {
  uint32_t token;
  float logprob; /* natural logarithm */
} reticle_token_logprob;

/* Allocated by the host, filled by poll. Pointers in it are the driver's and valid until the next
 * call of poll. */
typedef struct reticle_completion {
  size_t struct_size;
  uint64_t sequence;
  uint64_t tag;
  uint32_t kind; /* RETICLE_COMPLETION_* */
  uint32_t
      finish;     /* RETICLE_FINISH_*; not NONE on exactly one completion of a sequence, its last */
  uint32_t token; /* TOKEN, PROMPT_LOGPROB */
  uint32_t
      position; /* TOKEN, PROMPT_LOGPROB: the token's position; PREFILL: of the last token fed */
  uint32_t token_count;    /* PREFILL: tokens fed by the item */
  uint32_t credits_left;   /* TOKEN: credits that the sequence still holds */
  uint64_t device_time_ns; /* when the device had it */
  uint64_t busy_ns;        /* device time spent for this sequence since its last completion */
  uint64_t energy_nj;      /* likewise, nanojoules; 0: not measured */
  float logprob;           /* when asked for */
  uint32_t rank;           /* 1: the likeliest; when asked for */
  uint32_t top_count;
  const reticle_token_logprob* top; /* by falling log-probability, lowest id first among equals */
  int32_t status;                   /* FINISH_ERROR: RETICLE_* code */
  const char* message;              /* FINISH_ERROR: NUL-terminated */
} reticle_completion;

/* ==== Watching ==== */

/* Counters since open. NaN or 0 where not measured. */
typedef struct reticle_stats {
  size_t struct_size;
  uint64_t device_time_ns;
  uint64_t busy_ns;
  uint64_t prefill_tokens;
  uint64_t decode_tokens;
  uint64_t steps;
  uint64_t energy_uj;
  double power_watts;
  double temperature_celsius;
  double utilization;    /* 0..1, over the last second or so */
  double slowdown_ratio; /* emulated devices: host time per device time, at least 1; else 1 */
  uint64_t corrected_errors;
  uint64_t uncorrected_errors;
  uint64_t link_errors;
  uint64_t resets;
  uint64_t adapter_swaps;
  uint32_t sequences; /* alive now */
} reticle_stats;

enum {
  RETICLE_HEALTH_READY = 0,
  RETICLE_HEALTH_DEGRADED = 1, /* works, slower or with corrected errors */
  RETICLE_HEALTH_FAILED = 2    /* needs reset, or is lost */
};

typedef struct reticle_health {
  size_t struct_size;
  uint32_t state;   /* RETICLE_HEALTH_* */
  char reason[256]; /* empty when ready */
} reticle_health;

/* ==== The table ==== */

typedef struct reticle_device reticle_device; /* the driver's own */

typedef struct reticle_device_api {
  size_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  const char* driver_name;    /* static; a lower-case word such as "cpu" */
  const char* driver_version; /* static */

  /* Opens a device; returns when it is ready to take work. On OK *device is set and the caller
   * closes it. */
  int32_t (*open)(const reticle_host* host, const reticle_device_config* config,
                  reticle_device** device, reticle_error* error);
  /* Ends all sequences without completions and frees the device. Never fails; may wait for the
   * current step. */
  void (*close)(reticle_device* device);
  int32_t (*describe)(reticle_device* device, reticle_capabilities* capabilities,
                      reticle_error* error);

  /* Takes orders; never waits for the device. Items are taken in order; *accepted says how many.
   * When an item is refused (INVALID_ARGUMENT: its content; RESOURCE_EXHAUSTED: queue or slots
   * full, try again later) the earlier ones stand, that one and the later ones had no effect. */
  int32_t (*submit)(reticle_device* device, const reticle_work* work, size_t stride, size_t count,
                    size_t* accepted, reticle_error* error);
  /* Moves up to `capacity` completions into `completions`; *count says how many. Never waits.
   * UNAVAILABLE: the device is lost; reset it, after which poll gives every live sequence its END.
   * Completions of one sequence come in order. */
  int32_t (*poll)(reticle_device* device, reticle_completion* completions, size_t stride,
                  size_t capacity, size_t* count, reticle_error* error);
  /* Asks for one event on event_fd at the next completion, and returns 1 if completions are there
   * already (then no event may come), else 0. The host reads event_fd to clear it. */
  int32_t (*arm)(reticle_device* device);
  /* Ends a sequence soon: at once if it waits, after the current step if it computes. Its END
   * (CANCELLED) follows, unless another end was already on its way. NOT_FOUND for a sequence that
   * is not alive. */
  int32_t (*cancel)(reticle_device* device, uint64_t sequence, reticle_error* error);

  /* Adapters (LoRA). `adapter` is the host's id, not 0. UNIMPLEMENTED without
   * RETICLE_FEATURE_ADAPTERS. */
  int32_t (*adapter_load)(reticle_device* device, uint64_t adapter, const char* path, float scale,
                          reticle_error* error);
  /* FAILED_PRECONDITION while a live sequence uses it. */
  int32_t (*adapter_unload)(reticle_device* device, uint64_t adapter, reticle_error* error);

  int32_t (*stats)(reticle_device* device, reticle_stats* stats, reticle_error* error);
  int32_t (*health)(reticle_device* device, reticle_health* health, reticle_error* error);
  /* Brings a failed or hung device back; every live sequence gets its END (FINISH_ERROR, ABORTED).
   * UNIMPLEMENTED without RETICLE_FEATURE_RESET. */
  int32_t (*reset)(reticle_device* device, reticle_error* error);
} reticle_device_api;

#if defined(_WIN32)
#define RETICLE_DEVICE_EXPORT __declspec(dllexport)
#else
#define RETICLE_DEVICE_EXPORT __attribute__((visibility("default")))
#endif

/* The one exported symbol of a driver. Returns a static table, or NULL when the driver does not
 * speak the host's major. The host passes its own version; a table of an older minor is fine. */
RETICLE_DEVICE_EXPORT const reticle_device_api* reticle_device_get_api(uint32_t host_abi_major,
                                                                       uint32_t host_abi_minor);
typedef const reticle_device_api* (*reticle_device_get_api_fn)(uint32_t host_abi_major,
                                                               uint32_t host_abi_minor);

#ifdef __cplusplus
}
#endif

#endif /* RETICLE_DEVICE_H_ */
