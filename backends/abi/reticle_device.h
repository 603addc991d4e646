/* The Reticle device ABI: what a driver offers to the server, in C11, self-contained.
 *
 * A driver is built from this header alone. It exports one symbol, reticle_device_get_api(), which
 * returns a table of functions; the host passes a table of callbacks. Built-in backends go through
 * the same table.
 *
 * Discipline
 *  - Every struct begins with struct_size. The side that allocates a struct sets it to the sizeof()
 *    that it was compiled with. A reader treats a field beyond struct_size as zero. When the driver
 *    fills a struct of the host, it writes no more than struct_size bytes and sets struct_size to
 *    what it wrote. Fields are only ever appended, and no struct ends in padding that an appended
 *    field could fall into (`reserved` fills it).
 *  - Three small structs have no struct_size and never change: reticle_option, reticle_logit_bias,
 *    reticle_token_logprob. Arrays of other structs are passed with the stride of the side that
 *    allocated them.
 *  - ABI major: incompatible; minor: appended. A driver returns NULL for a major that it does not
 *    speak.
 *  - Functions that can fail return a status code numbered as absl::StatusCode and, if not OK, fill
 *    *error when error is not NULL. The message names the field, the value and the limit.
 *  - What a device does not offer it refuses, it never ignores: UNIMPLEMENTED for a feature,
 *    INVALID_ARGUMENT for a value beyond a limit of its capabilities.
 *  - Each side frees what it allocated; nothing is handed over. Pointers passed to a function are
 *    valid during the call only, unless the field says otherwise.
 *  - submit, poll, arm, cancel, adapter_*, reset and close of one device are called by one thread
 *    at a time (the engine thread); describe, stats and health by any thread at any time between
 *    open and close. Different devices are independent.
 *  - Drivers are never unloaded. A driver throws no exception across this boundary and never ends
 *    the process.
 *  - Times are nanoseconds. "Device time" is the device's own clock: monotonic, arbitrary origin.
 *
 * The life of a sequence
 *  1. It begins with the first accepted work item that names its id; that item feeds tokens. The
 *     host never reuses an id on a device.
 *  2. Work items feed tokens at consecutive positions (prefill, in chunks as the host likes) and
 *     grant decode credits. While a sequence has credits, the device samples a token, reports it,
 *     and feeds it to itself at the next position. A sampled token whose credit was the last is
 *     reported but not fed: the next work item feeds it, or grants credits with no tokens, and then
 *     the device feeds its own last token. So a host may top up credits at any time without
 *     knowing whether the last one is spent.
 *  3. While a sequence holds credits (tokens waiting to be prefilled before them included), its
 *     items may only add credits and extend the block table.
 *  4. It ends with exactly one completion whose `finish` is not RETICLE_FINISH_NONE: because a stop
 *     id was sampled, the context limit was reached, the host cancelled it, or an error struck.
 *     Credits that are left are void. After that completion the driver holds nothing of the
 *     sequence, and the host may reuse its KV blocks. This holds whatever happens, reset included.
 *  5. Between its end and the poll that delivers it, work for the sequence is refused with
 *     NOT_FOUND and cancel does nothing. The host skips the refused item and goes on.
 *
 * Determinism
 *  Sampling is a function of (model image, tokens before the position, sampling parameters, seed,
 *  position) alone: not of the batch, of how the prompt was cut into chunks, of how credits were
 *  granted, of the number of threads, nor of earlier sequences.
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
#define RETICLE_DEVICE_ABI_MINOR 1u

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

/* Allocated by the host, filled by the driver. Without an error it is left alone. */
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
  /* Model file or device image; NULL when the device has its model within. */
  const char* model_path;
  uint32_t device_index;    /* which of several cards */
  uint32_t threads;         /* compute threads */
  uint32_t kv_type;         /* RETICLE_KV_TYPE_*; host-paged devices only */
  uint32_t kv_block_tokens; /* tokens in a KV block; host-paged devices only */
  uint64_t kv_bytes;        /* memory for the KV pool, bytes */
  uint32_t context_limit;   /* tokens; must not pass the model's own */
  uint32_t max_sequences;   /* sequences alive at once */
  /* Options of this driver; an unknown name is INVALID_ARGUMENT. */
  const reticle_option* options;
  size_t option_count;
} reticle_device_config;

/* Who owns KV memory. */
enum {
  /* The host hands every work item a block table; the driver writes K and V of position p into
   * block table[p / kv_block_tokens]. Blocks may be shared between sequences as long as nobody
   * writes them. A sequence may begin behind position 0, on blocks that hold a cached prefix. */
  RETICLE_KV_HOST_PAGED = 0,
  /* The device keeps KV by itself; up to max_sequences sequences of together kv_token_capacity
   * tokens fit. One that outgrows it ends with FINISH_ERROR, RESOURCE_EXHAUSTED. Sequences begin
   * at position 0. */
  RETICLE_KV_DEVICE_SLOTS = 1
};

/* Features: bits of reticle_capabilities.features. */
#define RETICLE_FEATURE_TOKEN_MASK (1ull << 0)      /* reticle_work.token_mask */
#define RETICLE_FEATURE_LOGPROBS (1ull << 1)        /* reticle_sampling.logprobs */
#define RETICLE_FEATURE_PROMPT_LOGPROBS (1ull << 2) /* RETICLE_WORK_PROMPT_LOGPROBS */
#define RETICLE_FEATURE_LOGIT_BIAS (1ull << 3)      /* reticle_sampling.logit_bias */
#define RETICLE_FEATURE_PENALTIES (1ull << 4)       /* repetition, frequency, presence penalty */
#define RETICLE_FEATURE_MIN_P (1ull << 5)           /* reticle_sampling.min_p above 0 */
#define RETICLE_FEATURE_TOP_P (1ull << 6)           /* reticle_sampling.top_p below 1 */
#define RETICLE_FEATURE_TEMPERATURE (1ull << 7)     /* else only greedy, temperature 0 */
#define RETICLE_FEATURE_MIN_TOKENS (1ull << 8)      /* reticle_sampling.min_tokens */
#define RETICLE_FEATURE_ADAPTERS (1ull << 9)        /* adapter_load, reticle_work.adapter */
#define RETICLE_FEATURE_RESET (1ull << 10)          /* reset */
/* poll and submit cost so little (no system call, under a microsecond) that an I/O thread may drive
 * the device. */
#define RETICLE_FEATURE_CHEAP_POLL (1ull << 11)

/* Filled by describe. Constant while the device is open. */
typedef struct reticle_capabilities {
  size_t struct_size;
  char device_name[64]; /* for people and labels, such as "cpu" */
  char device_vendor[64];
  char model_name[128]; /* as the image names it; may be empty */
  /* Names the image: 64 lower-case hex digits of a hash over all of it. On devices of one driver
   * equal ones give equal tokens. Empty: unknown. */
  char model_hash[65];
  uint32_t vocab_size;         /* token ids are below this */
  uint32_t context_limit;      /* positions 0 .. context_limit-1 exist */
  uint32_t max_sequences;      /* sequences alive at once */
  uint32_t kv_mode;            /* RETICLE_KV_* */
  uint32_t kv_block_tokens;    /* host-paged: tokens in a block */
  uint32_t kv_block_count;     /* host-paged: block indices are below this */
  uint64_t kv_token_capacity;  /* tokens that fit in KV memory in all */
  uint64_t kv_bytes_per_token; /* for reports */
  uint32_t max_prefill_chunk;  /* tokens that one work item may feed */
  /* Tokens that the work items of one step should feed in all (a hint). */
  uint32_t max_step_tokens;
  /* Sequences that decode at full speed at once (a hint); 0: unknown. */
  uint32_t pipeline_depth;
  /* Credits that one sequence may hold; 1 when each token needs the host. */
  uint32_t max_decode_credits;
  uint64_t features; /* RETICLE_FEATURE_* */
  /* 0: samples from the whole vocabulary. Else with temperature > 0 top_k must be in
   * 1 .. max_top_k. */
  uint32_t max_top_k;
  /* Largest reticle_sampling.logprobs: one more than the likeliest tokens that can be listed. */
  uint32_t max_logprobs;
  uint32_t max_stop_ids;
  uint32_t max_adapters;    /* adapters loaded at once */
  uint64_t adapter_swap_ns; /* cost of making another adapter current */
  /* A descriptor that becomes readable (eventfd semantics) after arm() when a completion is there;
   * -1: poll only. Owned by the driver, valid until close. */
  int32_t event_fd;
  /* The top_k with which the device is at its fastest: a host uses it for requests that name none.
   * 0: all. Since 1.1. */
  uint32_t default_top_k;
} reticle_capabilities;

/* ==== Work ==== */

typedef struct reticle_logit_bias {
  uint32_t token;
  float bias; /* added to the logit before everything else */
} reticle_logit_bias;

/* How tokens of a sequence are chosen.
 *
 * The order of operations is: logit_bias; token_mask; stop ids banned below min_tokens; repetition,
 * frequency and presence penalty; then with temperature > 0: temperature, top_k, top_p, min_p (each
 * over what the one before left), and a draw by a generator that is keyed by (seed, position of the
 * sampled token). When no token is left, the sequence ends with FINISH_ERROR, FAILED_PRECONDITION.
 * Temperature 0 takes the largest logit. Among equal logits the lowest id counts as
 * the likelier. Log-probabilities and ranks are those of the model: of the log-softmax of the
 * logits before all of this. */
typedef struct reticle_sampling {
  size_t struct_size;
  float temperature; /* 0: greedy; finite, not negative */
  uint32_t top_k;    /* keeps the k likeliest tokens; 0: all */
  /* Keeps the fewest likeliest tokens whose probabilities add up to top_p; in (0, 1]; 1: all. */
  float top_p;
  /* Keeps tokens of at least min_p times the largest probability; in [0, 1]. */
  float min_p;
  /* 1: none; greater than 0. Once for each token of prompt or output: a positive logit is divided,
   * a negative one multiplied. */
  float repetition_penalty;
  float frequency_penalty; /* 0: none; taken off for each time that the token is in the output */
  float presence_penalty;  /* 0: none; taken off once for a token that is in the output */
  uint64_t seed;
  /* Length of the client's prompt: tokens from this position on are output. */
  uint32_t prompt_tokens;
  /* Stop ids cannot be sampled before this many output tokens. */
  uint32_t min_tokens;
  /* Sampling one of them ends the sequence; the token itself is reported. */
  const uint32_t* stop_ids;
  uint32_t stop_id_count;
  const reticle_logit_bias* logit_bias; /* at most one entry a token */
  uint32_t logit_bias_count;
  /* 0: none; k+1: the chosen token's log-probability and rank, and the k likeliest tokens. */
  uint32_t logprobs;
  /* When a penalty is set: the tokens at positions 0 .. history_count-1, where history_count is
   * position + token_count of this work item. (The device may not have seen those whose KV blocks
   * came from a cache.) Else NULL. */
  const uint32_t* history;
  uint32_t history_count;
  uint32_t reserved; /* 0 */
} reticle_sampling;

/* Flags of a work item. */

/* Report a PROMPT_LOGPROB completion for each of the positions position+1 ..
 * position+token_count-1, and for position+token_count if next_token names its token; in that
 * order, before the item's PREFILL. */
#define RETICLE_WORK_PROMPT_LOGPROBS (1u << 0)

#define RETICLE_NO_TOKEN UINT32_MAX

/* One order to one sequence. All that it points to is copied before submit returns. */
typedef struct reticle_work {
  size_t struct_size;
  uint64_t sequence;
  /* The host's; returned in every completion that follows from this item until the next one. */
  uint64_t tag;
  uint32_t flags; /* RETICLE_WORK_*; an unknown bit is INVALID_ARGUMENT */
  /* Tokens to feed at positions position .. position+token_count-1. `position` is that of the first
   * token that has no KV yet: 0, or behind the shared blocks of a cached prefix, or where the
   * sequence stands. */
  uint32_t position;
  const uint32_t* tokens;
  /* 0: only adds credits, at least one (`position` is not read); for a sequence that has credits or
   * has just spent its last one. Such an item never begins a sequence: NOT_FOUND when it is not
   * alive. */
  uint32_t token_count;
  /* Added to the sequence's credits. 0: prefill only, nothing is sampled after the last token.
   * Credits may go past the context limit, but the first sampled token must have a position:
   * position + token_count < context_limit. */
  uint32_t decode_credits;
  /* Host-paged: the whole block table of the sequence. It must cover every position that the
   * sequence will have fed when its credits are spent, at most context_limit - 1 of them when it
   * samples: for an item that feeds tokens that is position + token_count + decode_credits - 1
   * positions (position + token_count without credits). NULL: as in the sequence's last item, and
   * always for device slots. The blocks of positions that are already fed stay the same or hold the
   * same content. */
  const uint32_t* kv_blocks;
  uint32_t kv_block_count;
  /* NULL: as in the sequence's last item that had one. Needed by the first item that grants
   * credits; not allowed while the sequence holds credits, nor without tokens. */
  const reticle_sampling* sampling;
  /* (vocab_size + 31) / 32 words; bit i of word j allows token 32 j + i; at least one is set. Holds
   * for the next sampled token only, so the item must grant exactly one credit to a sequence that
   * has none. NULL: all allowed. */
  const uint32_t* token_mask;
  uint64_t adapter; /* 0: none; else as loaded. The same in every item of a sequence. */
  /* With RETICLE_WORK_PROMPT_LOGPROBS: how many likeliest tokens to report (below max_logprobs),
   * and the token at position + token_count or RETICLE_NO_TOKEN. Else not read. */
  uint32_t prompt_logprobs;
  uint32_t next_token;
} reticle_work;

/* ==== Completions ==== */

enum {
  RETICLE_COMPLETION_TOKEN = 1, /* a token was sampled */
  /* The tokens of a work item are fed; comes before the item's first TOKEN. */
  RETICLE_COMPLETION_PREFILL = 2,
  RETICLE_COMPLETION_PROMPT_LOGPROB = 3, /* log-probability of a prompt token */
  RETICLE_COMPLETION_END = 4             /* nothing but the end (cancelled, error, reset) */
};

enum {
  RETICLE_FINISH_NONE = 0,
  RETICLE_FINISH_STOP_ID = 1,       /* on the TOKEN that is a stop id */
  RETICLE_FINISH_CONTEXT_LIMIT = 2, /* on the TOKEN at the last position, context_limit - 1 */
  RETICLE_FINISH_CANCELLED = 3,
  RETICLE_FINISH_ERROR = 4 /* status and message say why */
};

typedef struct reticle_token_logprob {
  uint32_t token;
  float logprob; /* natural logarithm */
} reticle_token_logprob;

/* Allocated by the host, filled by poll (struct_size is not read: the stride is the room). Fields
 * that do not apply are zero. Pointers are the driver's and valid until the next call of poll. */
typedef struct reticle_completion {
  size_t struct_size;
  uint64_t sequence;
  uint64_t tag;
  uint32_t kind; /* RETICLE_COMPLETION_* */
  /* RETICLE_FINISH_*; not NONE on exactly one completion of a sequence, its last. */
  uint32_t finish;
  uint32_t token; /* TOKEN, PROMPT_LOGPROB */
  /* TOKEN, PROMPT_LOGPROB: the token's position; PREFILL: of the last token fed. */
  uint32_t position;
  uint32_t token_count;    /* PREFILL: tokens fed by the item */
  uint32_t credits_left;   /* TOKEN: credits that the sequence still holds; 0 at its end */
  uint64_t device_time_ns; /* when the device had it */
  uint64_t busy_ns;        /* device time spent for this sequence since its last completion */
  uint64_t energy_nj;      /* likewise, nanojoules; 0: not measured */
  float logprob;           /* TOKEN when asked for, PROMPT_LOGPROB */
  uint32_t rank;           /* likewise; 1: the likeliest */
  uint32_t top_count;
  const reticle_token_logprob* top; /* by falling log-probability, lowest id first among equals */
  /* FINISH_ERROR: RETICLE_* code. After ABORTED, UNAVAILABLE and RESOURCE_EXHAUSTED the host tries
   * the sequence again; its client is told FAILED_PRECONDITION (no token left to draw) as it is,
   * any other as the server's failure (INTERNAL or DATA_LOSS). */
  int32_t status;
  const char* message; /* FINISH_ERROR: NUL-terminated */
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
  uint32_t reserved;  /* 0 */
} reticle_stats;

enum {
  RETICLE_HEALTH_READY = 0,
  RETICLE_HEALTH_DEGRADED = 1, /* works, slower or with corrected errors */
  RETICLE_HEALTH_FAILED = 2    /* needs reset, or is lost */
};

typedef struct reticle_health {
  size_t struct_size;
  uint32_t state;    /* RETICLE_HEALTH_* */
  char reason[256];  /* empty when ready */
  uint32_t reserved; /* 0 */
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
   * closes it; else it is NULL. */
  int32_t (*open)(const reticle_host* host, const reticle_device_config* config,
                  reticle_device** device, reticle_error* error);
  /* Ends all sequences without completions and frees the device. Never fails; may wait for the
   * current step. */
  void (*close)(reticle_device* device);
  int32_t (*describe)(reticle_device* device, reticle_capabilities* capabilities,
                      reticle_error* error);

  /* Takes orders; never waits for the device. Items are taken in order; *accepted says how many.
   * When an item is refused, the earlier ones stand, that one and the later ones had no effect.
   * INVALID_ARGUMENT: its content. UNIMPLEMENTED: it asks for a feature that the device lacks.
   * NOT_FOUND: the sequence has ended (rules 2 and 5 of its life), or the adapter is not loaded.
   * RESOURCE_EXHAUSTED: queue or slots full, try again when completions have come.
   * UNAVAILABLE: the device is lost. The client of the sequence is told INVALID_ARGUMENT and
   * UNIMPLEMENTED as they are, any other failure as the server's (INTERNAL). `stride` is at least
   * the size of struct_size. */
  int32_t (*submit)(reticle_device* device, const reticle_work* work, size_t stride, size_t count,
                    size_t* accepted, reticle_error* error);
  /* Moves up to `capacity` completions into `completions`; *count says how many. Never waits.
   * Completions of one sequence come in order. UNAVAILABLE: the device is lost. Reset it, after
   * which poll gives every live sequence its END; a device without reset can only be closed. */
  int32_t (*poll)(reticle_device* device, reticle_completion* completions, size_t stride,
                  size_t capacity, size_t* count, reticle_error* error);
  /* Asks for one event on event_fd at the next completion, and returns 1 if completions are there
   * already (then no event may come), else 0. The host reads event_fd to clear it. Without an
   * event_fd it returns 1. */
  int32_t (*arm)(reticle_device* device);
  /* Ends a sequence soon: at once if it waits, after the current step if it computes. Its END
   * (CANCELLED) follows, unless another end was already on its way (that is OK too). NOT_FOUND for
   * a sequence that never began or whose end was polled. */
  int32_t (*cancel)(reticle_device* device, uint64_t sequence, reticle_error* error);

  /* Adapters (LoRA). `adapter` is the host's id, not 0. UNIMPLEMENTED without
   * RETICLE_FEATURE_ADAPTERS; ALREADY_EXISTS; RESOURCE_EXHAUSTED beyond max_adapters. */
  int32_t (*adapter_load)(reticle_device* device, uint64_t adapter, const char* path, float scale,
                          reticle_error* error);
  /* FAILED_PRECONDITION while a live sequence uses it; NOT_FOUND when it is not loaded. */
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
