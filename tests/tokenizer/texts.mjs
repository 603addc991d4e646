// Texts on which two tokenizers are compared: sentences in many scripts, code, and random strings
// that are the same at every run.

// A small generator (xorshift32) with a fixed seed.
export class Random {
  constructor(seed) {
    this.state = seed >>> 0 || 1;
  }
  below(limit) {
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x >>> 0;
    return this.state % limit;
  }
  pick(list) {
    return list[this.below(list.length)];
  }
}

// Blocks whose letters and numbers are the same in every Unicode version from 15.0 to 17.0, so that
// two Unicode libraries agree on them.
const kRanges = [
  [0x20, 0x7e], [0xa0, 0xff], [0x100, 0x17f], [0x250, 0x2af], [0x2b0, 0x2ff], [0x300, 0x36f],
  [0x391, 0x3a1], [0x3b1, 0x3c9], [0x400, 0x4ff], [0x531, 0x556], [0x5d0, 0x5ea], [0x610, 0x64a],
  [0x660, 0x669], [0x904, 0x939], [0x93a, 0x94f], [0x966, 0x96f], [0xe01, 0xe3a], [0x10d0, 0x10ff],
  [0x1200, 0x1248], [0x13a0, 0x13f5], [0x1780, 0x17b3], [0x2000, 0x206f], [0x20a0, 0x20bf],
  [0x2150, 0x218b], [0x2190, 0x21ff], [0x2460, 0x24ff], [0x2600, 0x26ff], [0x3000, 0x303f],
  [0x3041, 0x3096], [0x30a0, 0x30ff], [0x4e00, 0x9fff], [0xac00, 0xd7a3], [0xe000, 0xe0ff],
  [0xfb00, 0xfb06], [0xfe00, 0xfe0f], [0xff01, 0xffbe], [0xfff9, 0xfffd], [0x10330, 0x1034a],
  [0x1d400, 0x1d454], [0x1d7ce, 0x1d7ff], [0x1f100, 0x1f10c], [0x1f300, 0x1f5ff], [0x1f600, 0x1f64f],
  [0x20000, 0x20100], [0xe0100, 0xe01ef],
];

export const kSentences = [
  "The wafer left the fab on a Tuesday, and by Friday it was answering questions.",
  "I'm sure they'll say we've done it; she'd rather wait, but that's what they're for.",
  "IT'S WHAT WE'VE SAID: THEY'LL SHIP, I'M CERTAIN, AND YOU'RE INVITED. HE'D AGREE. DON'T!",
  "Der Zug fährt um 7:45 Uhr über die Brücke, größer als jede andere im Land.",
  "Où est passée la clé que j'avais laissée à côté de l'évier ?",
  "El niño pidió otra taza de té; ¿cuánto costó la última?",
  "Старый инженер проверил плату дважды и только потом включил питание.",
  "Το ρολόι στον τοίχο σταμάτησε στις τρεις και κανείς δεν το πρόσεξε.",
  "כתבתי את המכתב בלילה ושלחתי אותו בבוקר.",
  "وضعت الكتاب على الطاولة ثم خرجت إلى الحديقة ١٢٣.",
  "मैंने कल रात एक नया यंत्र देखा, और वह बहुत तेज़ था।",
  "ฉันวางกุญแจไว้ข้างหน้าต่างเมื่อวานนี้",
  "今天早上芯片終於點亮了，大家都很高興。",
  "昨日の夜、新しい装置が初めて動きました。とても速いです。",
  "오늘 아침에 새 장치가 처음으로 켜졌습니다.",
  "დღეს დილით ახალი მოწყობილობა ჩაირთო.",
  "Այսօր առավոտյան նոր սարքը միացավ։",
  "নতুন যন্ত্রটি আজ সকালে চালু হয়েছে।",
  "புதிய கருவி இன்று காலை இயங்கத் தொடங்கியது.",
  "ዛሬ ጠዋት አዲሱ መሣሪያ ሠራ።",
  "Cái máy mới đã chạy từ sáng nay, nhanh hơn tôi nghĩ.",
  "for (int i = 0; i < n; ++i) {\n\tif (a[i] != b[i]) return -1;  // differs\n}\n\n",
  "def f(x: int) -> str:\n    \"\"\"Doc.\"\"\"\n    return f\"{x:>08.3f}\" if x else ''\r\n",
  "SELECT id, COUNT(*) FROM t WHERE name LIKE '%o''Neil%' GROUP BY 1;",
  "<div class=\"a b\">&nbsp;<br/></div>\n<!-- end -->",
  "{\"a\": [1, 2.5e-10, -3], \"b\": null, \"c\": \"\\u00e9\\n\"}",
  "3.14159265358979 1,234,567 0xDEADBEEF 1e9 ½ ¾ ² Ⅷ ① ١٢٣ १२३ 𝟙𝟚𝟛",
  "😀 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷 ❤️ ☕️",
  "e\u0301 a\u030A n\u0303 \u0301 x\u0301\u0302\u0303y",
  "http://localhost:8080/v1/models?limit=10&x=%20#top a.b@c-d.example",
];

// Pieces whose neighbourhood decides how text is cut.
const kPieces = [
  ' ', '  ', '   ', '\t', '\n', '\r', '\r\n', '\n\n', ' \n', '\n ', '\u00a0', '\u2003', '\u3000',
  '\u2028', '\u200b', '\u200d', '\v', '\f', '\u001c', "'", "'s", "'S", "'ll", "'Ll", "'LL", "'l",
  "'re", "'vE", "'d", "'M", "'t", "'x", '\u2019s', '\u02bcs', '\u2019', "''", '"', 'a', 'Z', 'the',
  'Hello', 'world', '\u00e9', 'e\u0301', '\u0301', '\u00df', '\u0130', '\u4e2d', '\u4e2d\u6587',
  '\u3042', '\uac00', '\u0639', '\u05d0', '\u0915\u093f', '0', '12', '123', '1234', '\u0661',
  '\u00bd', '\u2167', '.', ',', '!', '...', '-', '--', '_', '(', ')', '[]', '{', '}', '=', '==',
  '+', '*', '/', '//', '\\', '#', '$', '%', '&', '<', '>', '|', '~', '^', '\u00a3', '\u20ac',
  '\u{1f600}', '\u{1f469}\u200d\u{1f680}', '\u{1f1e9}\u{1f1ea}', '\u0000', '\u007f', '\ufffd',
];

function randomCharacters(random, length) {
  let text = '';
  for (let i = 0; i < length; ++i) {
    const [first, last] = random.pick(kRanges);
    text += String.fromCodePoint(first + random.below(last - first + 1));
  }
  return text;
}

function randomMix(random, length) {
  let text = '';
  for (let i = 0; i < length; ++i) text += random.pick(kPieces);
  return text;
}

// A window of a sentence with some characters replaced, dropped or doubled.
function mutatedSentence(random) {
  const characters = [...random.pick(kSentences)];
  const edits = random.below(6);
  for (let i = 0; i < edits && characters.length > 0; ++i) {
    const at = random.below(characters.length);
    characters.splice(at, random.below(3), ...(random.below(2) ? [random.pick(kPieces)] : []));
  }
  const begin = random.below(Math.max(1, characters.length >> 1));
  return characters.slice(begin).join('');
}

// One character again and again: where wrong tie-breaks show.
function randomRun(random) {
  return random.pick(kPieces).repeat(1 + random.below(80));
}

export function makeTexts(seed, count) {
  const random = new Random(seed);
  const texts = new Set([...kSentences, ...kPieces]);
  for (const first of kPieces) {
    for (const second of kPieces) texts.add(first + second);
  }
  while (texts.size < count) {
    const kind = random.below(10);
    if (kind < 3) texts.add(randomMix(random, 1 + random.below(24)));
    else if (kind < 6) texts.add(mutatedSentence(random));
    else if (kind < 8) texts.add(randomCharacters(random, 1 + random.below(40)));
    else if (kind < 9) texts.add(randomMix(random, 2) + randomCharacters(random, 3) + randomMix(random, 2));
    else texts.add(randomRun(random));
  }
  return [...texts];
}
