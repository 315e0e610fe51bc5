/* Events */

const watcher = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) more(); }, { rootMargin: "600px" });
function watch() { watcher.unobserve($("sentinel")); if (nextOffset !== null) watcher.observe($("sentinel")); }

text.addEventListener("input", () => change(() => { query.text = text.value; }, { typing: true }));
$("form").addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(timer); typedAt = 0; search(); });
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.shiftKey) { event.preventDefault(); keep(); }
  if (event.key === "ArrowDown" && grid.querySelector("a")) { event.preventDefault(); grid.querySelector("a").focus(); }
});

function keep() {
  const { words, without } = typed();
  if (!words && !without.length) return;
  change(() => {
    const said = [...(words ? [{ value: words, weight: query.parts.length ? query.weight : 1 }] : []), ...without.map((value) => ({ value, weight: LESS }))];
    query.parts = [...query.parts, ...said.map((part) => ({ kind: "text", ...part }))];
    query.text = text.value = "";
    query.weight = 1;
  });
  text.focus();
}

$("keep").addEventListener("click", keep);
$("clear").addEventListener("click", () => { change(() => { query.text = text.value = ""; query.parts = []; query.weight = 1; }); text.focus(); });
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", (event) => { take(event.target.files[0]); event.target.value = ""; });
$("more").addEventListener("click", more);
$("filter").addEventListener("click", () => toggleFilters($("filters").hidden));
$("unfilter").addEventListener("click", unfilter);
$("dedupe").addEventListener("change", (event) => change(() => { query.dedupe = event.target.checked; }));
$("words").addEventListener("change", (event) => change(() => { query.words = event.target.checked; }));
$("home").addEventListener("click", (event) => { if (!event.metaKey && !event.ctrlKey) { event.preventDefault(); startOver(); } });
$("shut").addEventListener("click", () => dialog.close());
$("like").addEventListener("click", () => like(1));
$("unlike").addEventListener("click", () => like(LESS));
/* The event comes some time after the browser has closed the dialog and given the focus back. By then a visitor may have
   moved it on, to the search box by "/" for one, and it stays there. */
dialog.addEventListener("close", () => {
  document.body.append($("toast"));
  leave();
  if (opener?.isConnected && [document.body, returned].includes(document.activeElement)) opener.focus();
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", (event) => {
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});

grid.addEventListener("keydown", (event) => {
  const tiles = [...grid.querySelectorAll("a")], at = tiles.indexOf(document.activeElement);
  if (at < 0) return;
  const here = tiles[at].getBoundingClientRect(), middle = here.left + here.width / 2;
  const off = (node) => { const box = node.getBoundingClientRect(); return Math.abs(box.left + box.width / 2 - middle); };
  const row = (sign) => {
    const beyond = tiles.filter((node) => sign * (node.getBoundingClientRect().top - here.top) > 2);
    const edge = beyond.length && (sign > 0 ? beyond[0] : beyond[beyond.length - 1]).getBoundingClientRect().top;
    return beyond.filter((node) => Math.abs(node.getBoundingClientRect().top - edge) < 2).sort((a, b) => off(a) - off(b))[0];
  };
  const next = { ArrowRight: () => tiles[at + 1], ArrowLeft: () => tiles[at - 1], ArrowDown: () => row(1), ArrowUp: () => row(-1) ?? text,
    Home: () => tiles[0], End: () => tiles[tiles.length - 1] }[event.key]?.();
  if (next) { event.preventDefault(); next.focus(); }
});

addEventListener("keydown", (event) => {
  if (event.key === "/" && !dialog.open && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) { event.preventDefault(); text.focus(); text.select(); }
  if (event.key === "Escape" && picked && !document.querySelector("dialog[open]")) { select(false); return; }
  if (event.key === "Escape" && !dialog.open && !$("filters").hidden) { toggleFilters(false); $("filter").focus(); }
});
addEventListener("popstate", () => {
  if (leaving) { // back from the large view, where the query is the same; a visitor may have changed it meanwhile
    leaving = false;
    const late = unwritten;
    unwritten = null;
    if (late) remember(late.mode, late.extra);
    return;
  }
  const was = shown, before = wording();
  recall(history.state);
  if (dialog.open && shown === null) dialog.close();
  if (wording() !== before) { typedAt = 0; drawQuery(); drawFilters(); search(); }
  else place = null;
  if (shown !== null && shown !== was) open(shown, -1, null);
});
addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files].filter((each) => each.type.startsWith("image/"));
  if (files.length) { event.preventDefault(); given(files); }
});

/* Images that are dropped or pasted are added if that is what one is at, or if they are several; else one is searched with. */
function given(files) {
  if (!files.length) return;
  if (adding.open || (mayChange && files.length > 1)) { if (dialog.open) dialog.close(); queueUp(files); return; }
  if (dialog.open) dialog.close();
  take(files[0]);
}

let inside = 0;
const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragenter", (event) => { if (carries(event)) { inside += 1; $("drop-words").textContent = adding.open ? "Drop the images to add them" : "Drop the image to search with it"; $("drop").hidden = false; } });
addEventListener("dragleave", (event) => { if (carries(event) && --inside <= 0) { inside = 0; $("drop").hidden = true; } });
addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!carries(event)) return;
  event.preventDefault();
  inside = 0;
  $("drop").hidden = true;
  given([...event.dataTransfer.files].filter((each) => !each.type || each.type.startsWith("image/")));
});
let still = 0;
addEventListener("scroll", () => {
  $("header").classList.toggle("stuck", scrollY > 8);
  clearTimeout(still);
  still = setTimeout(() => { if (!place) history.replaceState({ ...history.state, y: scrollY, count: results.length }, ""); }, 150);
}, { passive: true });
history.scrollRestoration = "manual";

/* A finger that moves across the large view goes to the next image, and one that moves down closes it. */
let touch = null;
$("figure").addEventListener("touchstart", ({ touches }) => {
  touch = touches.length === 1 && (visualViewport?.scale ?? 1) === 1 ? touches[0] : null;
}, { passive: true });
$("figure").addEventListener("touchend", ({ changedTouches: [end] }) => {
  if (!touch) return;
  const across = end.clientX - touch.clientX, down = end.clientY - touch.clientY;
  touch = null;
  if (Math.abs(across) > SWIPE && Math.abs(across) > 1.5 * Math.abs(down)) step(across < 0 ? 1 : -1);
  else if (down > 2 * SWIPE && down > 1.5 * Math.abs(across)) dialog.close();
}, { passive: true });

/* Scores and times are for those who ask for them; the browser keeps that they did. */
const SCORES = "bento-clip-scores";
function showScores(are) {
  document.body.classList.toggle("scores", are);
  $("scores").textContent = are ? "Hide scores" : "Show scores";
}
$("scores").addEventListener("click", () => {
  const are = !document.body.classList.contains("scores");
  showScores(are);
  if (are) inBrowser?.setItem(SCORES, "1");
  else inBrowser?.removeItem(SCORES);
});
showScores(inBrowser?.getItem(SCORES) === "1");

$("forget").hidden = !key;
recall(history.state); // before the service answers, because a visitor may type before that
if (!matchMedia("(pointer: coarse)").matches && shown === null) text.focus();
begin();
