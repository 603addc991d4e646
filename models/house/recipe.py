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
# Phases of training: seed of the documents, the number of windows (WINDOW documents that are sorted into batches), what the
# documents are made of (corpus.MIX), and the share of one-turn chats whose answer is cut after CUT tokens: the answers are
# soon known by heart, and what is left to learn is which one belongs to a question, which their beginnings show.
WINDOW, CUT = 4000, 8
PHASES = (
    (12, 140, {"prose": 0.015, "long": 0.0015, "short": 0.7, "system": 0.08, "noise": 0.25}, 0.85),
)
VALIDATION_SEED, VALIDATION_DOCUMENTS, DEVELOPMENT_SEED = 21, 300, 22

# Optimiser: the rate rises over WARMUP_STEPS, stays, and falls to zero over the last share DECAY of the windows.
MODEL_SEED = 3
BATCH_TOKENS, RATE, WARMUP_STEPS, DECAY = 2048, 1.2e-3, 200, 0.4
WEIGHT_DECAY, BETAS, CLIP, INTENT_SHARE = 0.05, (0.9, 0.98), 1.0, 1.0


def windows():
    """Name, mix and share of cut answers of each window, in order."""
    for seed, count, mix, cut_share in PHASES:
        for k in range(count):
            yield "%d.%d" % (seed, k), mix, cut_share
