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
# documents are made of (corpus.MIX), the share of one-turn chats whose answer is cut and after how many tokens, and the weight
# of the early loss. What is hardest to learn is which answer belongs to a question, and its beginning shows that.
WINDOW = 4000
LEAN = {"prose": 0.006, "long": 0.0004, "short": 0.93, "system": 0.04, "noise": 0.25}
WIDE = {**LEAN, "noise": 0.15, "drop": 0.25, "wide": 0.75}
PHASES = (
    (12, 20, {"prose": 0.015, "long": 0.0015, "short": 0.7, "system": 0.08, "noise": 0.25}, 0.85, 8, 0.0),
    (13, 16, LEAN, 0.92, 8, 0.0),
    (14, 16, {**LEAN, "drop": 0.5}, 0.92, 8, 0.7),
    (15, 12, WIDE, 0.92, 8, 0.5),
    (16, 40, WIDE, 0.75, 5, 0.5),
    (17, 12, WIDE, 0.5, 5, 0.5),
)
VALIDATION_SEED, VALIDATION_DOCUMENTS = 21, 300
DEVELOPMENT_SEED, DEVELOPMENT_TOKENS = 22, 6

# Optimiser: the rate rises over WARMUP_STEPS and goes in straight lines between the given rates at windows.
MODEL_SEED = 3
BATCH_TOKENS, WARMUP_STEPS = 2048, 200
RATES = ((0, 1.2e-3), (52, 1.2e-3), (92, 5.846e-4), (104, 3.341e-4), (116, 0.0))
WEIGHT_DECAY, BETAS, CLIP = 0.05, (0.9, 0.98), 1.0


def windows():
    """Name, mix, share and length of cut answers, and weight of the early loss of each window, in order."""
    for seed, count, *phase in PHASES:
        for k in range(count):
            yield ("%d.%d" % (seed, k), *phase)
