/* The ABI header alone, as C11: that it compiles by itself, and where every field lies on machines
 * with 64-bit pointers. A field that moves breaks every driver that was built before. */
#include "backends/abi/reticle_device.h"

#define AT(type, field, offset) \
  _Static_assert(offsetof(type, field) == (offset), #type "." #field " has moved")
#define SIZE(type, size) _Static_assert(sizeof(type) == (size), #type " has another size")

_Static_assert(sizeof(void*) == 8 && sizeof(size_t) == 8, "64-bit pointers");

AT(reticle_error, struct_size, 0);
AT(reticle_error, code, 8);
AT(reticle_error, message, 12);
SIZE(reticle_error, 512);

AT(reticle_host, struct_size, 0);
AT(reticle_host, context, 8);
AT(reticle_host, log, 16);
AT(reticle_host, now_ns, 24);
AT(reticle_host, allocate, 32);
AT(reticle_host, release, 40);
SIZE(reticle_host, 48);

AT(reticle_option, name, 0);
AT(reticle_option, value, 8);
SIZE(reticle_option, 16);

AT(reticle_device_config, struct_size, 0);
AT(reticle_device_config, model_path, 8);
AT(reticle_device_config, device_index, 16);
AT(reticle_device_config, threads, 20);
AT(reticle_device_config, kv_type, 24);
AT(reticle_device_config, kv_block_tokens, 28);
AT(reticle_device_config, kv_bytes, 32);
AT(reticle_device_config, context_limit, 40);
AT(reticle_device_config, max_sequences, 44);
AT(reticle_device_config, options, 48);
AT(reticle_device_config, option_count, 56);
SIZE(reticle_device_config, 64);

AT(reticle_capabilities, struct_size, 0);
AT(reticle_capabilities, device_name, 8);
AT(reticle_capabilities, device_vendor, 72);
AT(reticle_capabilities, model_name, 136);
AT(reticle_capabilities, model_hash, 264);
AT(reticle_capabilities, vocab_size, 332);
AT(reticle_capabilities, context_limit, 336);
AT(reticle_capabilities, max_sequences, 340);
AT(reticle_capabilities, kv_mode, 344);
AT(reticle_capabilities, kv_block_tokens, 348);
AT(reticle_capabilities, kv_block_count, 352);
AT(reticle_capabilities, kv_token_capacity, 360);
AT(reticle_capabilities, kv_bytes_per_token, 368);
AT(reticle_capabilities, max_prefill_chunk, 376);
AT(reticle_capabilities, max_step_tokens, 380);
AT(reticle_capabilities, pipeline_depth, 384);
AT(reticle_capabilities, max_decode_credits, 388);
AT(reticle_capabilities, features, 392);
AT(reticle_capabilities, max_top_k, 400);
AT(reticle_capabilities, max_logprobs, 404);
AT(reticle_capabilities, max_stop_ids, 408);
AT(reticle_capabilities, max_adapters, 412);
AT(reticle_capabilities, adapter_swap_ns, 416);
AT(reticle_capabilities, event_fd, 424);
AT(reticle_capabilities, default_top_k, 428);
SIZE(reticle_capabilities, 432);

AT(reticle_logit_bias, token, 0);
AT(reticle_logit_bias, bias, 4);
SIZE(reticle_logit_bias, 8);

AT(reticle_sampling, struct_size, 0);
AT(reticle_sampling, temperature, 8);
AT(reticle_sampling, top_k, 12);
AT(reticle_sampling, top_p, 16);
AT(reticle_sampling, min_p, 20);
AT(reticle_sampling, repetition_penalty, 24);
AT(reticle_sampling, frequency_penalty, 28);
AT(reticle_sampling, presence_penalty, 32);
AT(reticle_sampling, seed, 40);
AT(reticle_sampling, prompt_tokens, 48);
AT(reticle_sampling, min_tokens, 52);
AT(reticle_sampling, stop_ids, 56);
AT(reticle_sampling, stop_id_count, 64);
AT(reticle_sampling, logit_bias, 72);
AT(reticle_sampling, logit_bias_count, 80);
AT(reticle_sampling, logprobs, 84);
AT(reticle_sampling, history, 88);
AT(reticle_sampling, history_count, 96);
AT(reticle_sampling, reserved, 100);
SIZE(reticle_sampling, 104);

AT(reticle_work, struct_size, 0);
AT(reticle_work, sequence, 8);
AT(reticle_work, tag, 16);
AT(reticle_work, flags, 24);
AT(reticle_work, position, 28);
AT(reticle_work, tokens, 32);
AT(reticle_work, token_count, 40);
AT(reticle_work, decode_credits, 44);
AT(reticle_work, kv_blocks, 48);
AT(reticle_work, kv_block_count, 56);
AT(reticle_work, sampling, 64);
AT(reticle_work, token_mask, 72);
AT(reticle_work, adapter, 80);
AT(reticle_work, prompt_logprobs, 88);
AT(reticle_work, next_token, 92);
SIZE(reticle_work, 96);

AT(reticle_token_logprob, token, 0);
AT(reticle_token_logprob, logprob, 4);
SIZE(reticle_token_logprob, 8);

AT(reticle_completion, struct_size, 0);
AT(reticle_completion, sequence, 8);
AT(reticle_completion, tag, 16);
AT(reticle_completion, kind, 24);
AT(reticle_completion, finish, 28);
AT(reticle_completion, token, 32);
AT(reticle_completion, position, 36);
AT(reticle_completion, token_count, 40);
AT(reticle_completion, credits_left, 44);
AT(reticle_completion, device_time_ns, 48);
AT(reticle_completion, busy_ns, 56);
AT(reticle_completion, energy_nj, 64);
AT(reticle_completion, logprob, 72);
AT(reticle_completion, rank, 76);
AT(reticle_completion, top_count, 80);
AT(reticle_completion, top, 88);
AT(reticle_completion, status, 96);
AT(reticle_completion, message, 104);
SIZE(reticle_completion, 112);

AT(reticle_stats, struct_size, 0);
AT(reticle_stats, device_time_ns, 8);
AT(reticle_stats, busy_ns, 16);
AT(reticle_stats, prefill_tokens, 24);
AT(reticle_stats, decode_tokens, 32);
AT(reticle_stats, steps, 40);
AT(reticle_stats, energy_uj, 48);
AT(reticle_stats, power_watts, 56);
AT(reticle_stats, temperature_celsius, 64);
AT(reticle_stats, utilization, 72);
AT(reticle_stats, slowdown_ratio, 80);
AT(reticle_stats, corrected_errors, 88);
AT(reticle_stats, uncorrected_errors, 96);
AT(reticle_stats, link_errors, 104);
AT(reticle_stats, resets, 112);
AT(reticle_stats, adapter_swaps, 120);
AT(reticle_stats, sequences, 128);
AT(reticle_stats, reserved, 132);
SIZE(reticle_stats, 136);

AT(reticle_health, struct_size, 0);
AT(reticle_health, state, 8);
AT(reticle_health, reason, 12);
AT(reticle_health, reserved, 268);
SIZE(reticle_health, 272);

AT(reticle_device_api, struct_size, 0);
AT(reticle_device_api, abi_major, 8);
AT(reticle_device_api, abi_minor, 12);
AT(reticle_device_api, driver_name, 16);
AT(reticle_device_api, driver_version, 24);
AT(reticle_device_api, open, 32);
AT(reticle_device_api, close, 40);
AT(reticle_device_api, describe, 48);
AT(reticle_device_api, submit, 56);
AT(reticle_device_api, poll, 64);
AT(reticle_device_api, arm, 72);
AT(reticle_device_api, cancel, 80);
AT(reticle_device_api, adapter_load, 88);
AT(reticle_device_api, adapter_unload, 96);
AT(reticle_device_api, stats, 104);
AT(reticle_device_api, health, 112);
AT(reticle_device_api, reset, 120);
SIZE(reticle_device_api, 128);

/* A translation unit needs something in it. */
uint32_t reticle_layout_abi_major(void);
uint32_t reticle_layout_abi_major(void) { return RETICLE_DEVICE_ABI_MAJOR; }
