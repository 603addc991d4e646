// Writes GGUF (version 3) files that hold metadata only.
import { writeFileSync } from 'node:fs';

const kUint32 = 4;
const kInt32 = 5;
const kFloat32 = 6;
const kBool = 7;
const kString = 8;
const kArray = 9;

class Bytes {
  parts = [];
  uint32(value) {
    const part = Buffer.alloc(4);
    part.writeUInt32LE(value);
    this.parts.push(part);
  }
  int32(value) {
    const part = Buffer.alloc(4);
    part.writeInt32LE(value);
    this.parts.push(part);
  }
  float32(value) {
    const part = Buffer.alloc(4);
    part.writeFloatLE(value);
    this.parts.push(part);
  }
  uint64(value) {
    const part = Buffer.alloc(8);
    part.writeBigUInt64LE(BigInt(value));
    this.parts.push(part);
  }
  uint8(value) {
    this.parts.push(Buffer.from([value]));
  }
  string(value) {
    const text = Buffer.from(value, 'utf8');
    this.uint64(text.length);
    this.parts.push(text);
  }
}

const element = {
  [kUint32]: (bytes, value) => bytes.uint32(value),
  [kInt32]: (bytes, value) => bytes.int32(value),
  [kFloat32]: (bytes, value) => bytes.float32(value),
  [kBool]: (bytes, value) => bytes.uint8(value ? 1 : 0),
  [kString]: (bytes, value) => bytes.string(value),
};

export const uint32 = (value) => ({ type: kUint32, value });
export const bool = (value) => ({ type: kBool, value });
export const string = (value) => ({ type: kString, value });
export const int32s = (values) => ({ type: kArray, of: kInt32, values });
export const float32s = (values) => ({ type: kArray, of: kFloat32, values });
export const strings = (values) => ({ type: kArray, of: kString, values });

// `metadata`: key -> one of the values above.
export function writeGguf(path, metadata) {
  const entries = Object.entries(metadata);
  const bytes = new Bytes();
  bytes.parts.push(Buffer.from('GGUF'));
  bytes.uint32(3);
  bytes.uint64(0);
  bytes.uint64(entries.length);
  for (const [key, entry] of entries) {
    bytes.string(key);
    bytes.uint32(entry.type);
    if (entry.type === kArray) {
      bytes.uint32(entry.of);
      bytes.uint64(entry.values.length);
      for (const value of entry.values) element[entry.of](bytes, value);
    } else {
      element[entry.type](bytes, entry.value);
    }
  }
  writeFileSync(path, Buffer.concat(bytes.parts));
}
