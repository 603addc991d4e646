// As much of a document as markdown.js uses, and what a test wants to know of it.
class Node {
  constructor(type) {
    this.nodeType = type;
    this.parent = null;
  }

  remove() {
    if (this.parent === null) return;
    this.parent.children.splice(this.parent.children.indexOf(this), 1);
    this.parent = null;
  }
}

class Text extends Node {
  constructor(data) {
    super(3);
    this.data = data;
  }

  appendData(data) {
    this.data += data;
  }

  get textContent() {
    return this.data;
  }
}

class Element extends Node {
  constructor(tag) {
    super(1);
    this.tag = tag;
    this.children = [];
    this.attributes = {};
    this.className = '';
  }

  appendChild(child) {
    child.remove();
    child.parent = this;
    this.children.push(child);
    return child;
  }

  setAttribute(name, value) {
    this.attributes[name] = value;
  }

  get lastChild() {
    return this.children[this.children.length - 1] ?? null;
  }

  get textContent() {
    return this.children.map((child) => child.textContent).join('');
  }

  set textContent(text) {
    for (const child of this.children) child.parent = null;
    this.children = [];
    if (text !== '') this.appendChild(new Text(text));
  }
}

export const fakeDocument = {
  createElement: (tag) => new Element(tag),
  createTextNode: (data) => new Text(data),
};

export function elements(root) {
  return root.children.flatMap((child) => (child.nodeType === 1 ? [child, ...elements(child)] : []));
}

// The tree as text: <p>one<strong>two</strong></p>. Neighbouring texts are one.
export function serialise(node) {
  if (node.nodeType === 3) return node.data.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  const inner = node.children.map(serialise).join('');
  const href = node.attributes.href ? ` href="${node.attributes.href}"` : '';
  const start = node.attributes.start ? ` start="${node.attributes.start}"` : '';
  return node.tag === 'root' ? inner : `<${node.tag}${href}${start}>${inner}</${node.tag}>`;
}
