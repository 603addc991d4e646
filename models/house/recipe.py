"""Every number of the house model's recipe, in one place."""

# Special tokens, in the order of their ids; they are the last ids of the vocabulary.
BEGIN, END, SYSTEM, USER, ASSISTANT = "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (BEGIN, END, SYSTEM, USER, ASSISTANT)

# Messages: dictionaries with 'role' and 'content'. The template writes the begin token itself.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' }}"
    "{% else %}{{ '<|system|>' }}{% endif %}"
    "{{ message['content'] | trim }}{{ '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# Shape. Every row length is a multiple of 256, so that K-quants apply.
VOCABULARY = 2048
DIM, LAYERS, HEADS, KV_HEADS, HEAD_DIM, FFN = 256, 4, 4, 2, 64, 512
RMS_EPS, ROPE_THETA, CONTEXT = 1e-5, 10000.0, 2048

# Data.
TOKENIZER_SEED, TOKENIZER_DOCUMENTS = 7, 30000
ORDER_SEED = 11
# Phases of training: seed of the documents and their number (a seed that comes again goes on where it was), what they are
# made of (corpus.MIX), tokens a batch, share of one-turn chats whose answer is cut after CUT tokens, and the rate at the
# begin and end of the phase (half a cosine). Once the answers are known by heart, what is left to learn is which one
# belongs to a question, and their beginnings show that.
NOISY = {"unknown_share": 0.18, "noise": 0.65}
PHASES = (
    (11, 24000, {}, 2048, 0.0, 1.5e-3, 1.25e-3),
    (11, 12000, {}, 1024, 0.65, 1.4e-3, 1.3e-3),
    (11, 42000, {}, 2048, 0.5, 7e-4, 3.9e-4),
    (13, 18000, {"unknown_share": 0.18}, 2048, 0.75, 3.9e-4, 3.3e-4),
    (17, 48000, NOISY, 2048, 0.85, 4e-4, 1.5e-5),
    (19, 66000, {**NOISY, "noise": 0.5, "short": 0.8, "wide": True}, 2048, 0.9, 5e-4, 1.5e-5),
)
CUT = 10
VALIDATION_SEED, VALIDATION_DOCUMENTS = 12, 300

# Optimiser.
MODEL_SEED = 3
WARMUP_STEPS = 100
WEIGHT_DECAY, BETAS, CLIP = 0.05, (0.9, 0.98), 1.0
