"use strict";
/* Text from the service or from a visitor reaches the page only as text nodes and properties. */

const PAGE = innerWidth < 1600 ? 24 : 48, MOST_AGAIN = 480, CAPTIONS = 6, DEBOUNCE_MS = 180, GHOST_MS = 200, BURST_MS = 2000, STEP = 0.5, HEAVIEST = 3, LESS = -0.5;
const WAITS = new Set([429, 503]);
const CHOICES = 8, FEW = 6, OFFERED = 5, LARGEST = 1024, LARGEST_ORIGINAL = 4096, WHOLE_MS = 300, SMALLEST_FRAME = 320, SWIPE = 50, TWINS = 0.97, ENOUGH = 0.25, UNDO_MS = 8000, TOGETHER = 3, MOST_PARTS = 16, MOST_CHANGES = 64, SENT_SIDE = 1024, SENT_BYTES = 1 << 20, LONGEST_WAIT_S = 30;
const CREDIT = /^(author|artist|attribution|copyright|creator|credits?|licen[cs]e(_url)?|photographer|source|url)$/i;
const $ = (id) => document.getElementById(id);
const text = $("text"), grid = $("grid"), dialog = $("dialog");

let query = { text: "", weight: 1, parts: [], where: {}, dedupe: false, words: false, twins: false, far: false, sort: null };
let results = [], known = new Map(), nextOffset = null, running = null, loading = null, timer = 0, retryTimer = 0, attempts = 0, searched = null;
let info = null, fields = [], examples = [], shown = null, lost = false, typedAt = 0, opener = null, returned = null, place = null, least, rest = null, seen = 0, mayChange = false, leaving = false, unwritten = null;
const uploads = new Map(), changedAt = new Map();

/* A browser that is told to keep nothing throws where it is asked for what it keeps. */
const keeping = (storage) => { try { return window[storage]; } catch { return null; } };
const inTab = keeping("sessionStorage"), inBrowser = keeping("localStorage");

/* The key of a visitor who has one. It is in this tab alone: no other tab, no disk, no cookie that other sites could have
   sent; it goes as a header, so images that need it are fetched and shown from memory. */
const KEY = "bento-clip-key", entry = $("entry");
let key = inTab?.getItem(KEY) ?? "", withKey = null;
const credentials = () => (key ? { "X-API-Key": key } : {});

/* Elements */

function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

const hiddenText = (words) => el("span", { className: "hidden-text" }, words);
const number = (value, digits = 0) => value.toLocaleString("en", { maximumFractionDigits: digits });
const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
const sentence = (words) => (/[.!?…]$/.test(words) ? words : `${words}.`);
const signed = (weight) => (weight < 0 ? `−${-weight}` : `×${weight}`);
const named = (column) => { const words = column.replace(/([a-z])([A-Z])/g, "$1 $2").replace(/[_\-.]+/g, " ").trim() || column; return words.charAt(0).toUpperCase() + words.slice(1); };
const shorten = (words, most) => (words.length > most ? `${words.slice(0, most - 1).trimEnd()}…` : words);
const alt = (image) => (image.captions?.length ? image.captions.join("; ") : image.image_path || image.image_id);
