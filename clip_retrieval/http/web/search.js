/* Searching */

function stop() {
  running?.abort();
  running = null;
  clearTimeout(timer);
  timer = 0;
  clearInterval(retryTimer);
  loading = null;
}

async function search() {
  stop();
  attempts = 0;
  await attempt();
}

const wording = () => JSON.stringify([query.text, query.weight, query.parts, query.where, query.dedupe, query.words, query.twins, query.far, query.sort]);

/* A search sees the changes that this visitor has made, in whatever process it arrives. */
const find = (body, signal) => ask("search", { body, signal });

async function attempt() {
  stop();
  searched = null;
  if (isHome()) return home();
  searched = wording();
  const mine = (running = new AbortController());
  const current = () => running === mine && !mine.signal.aborted;
  busy(true);
  $("hero").hidden = true;
  $("found").hidden = false;
  $("tail").replaceChildren();
  const ghost = setTimeout(() => current() && !results.length && ghosts(), GHOST_MS);
  const images = query.parts.some((part) => part.kind !== "text");
  const said = images && info?.captions !== 0
    ? find(request("captions", 0, CAPTIONS, leastOf("captions")), mine.signal).then(([answer]) => answer.results, () => [])
    : Promise.resolve([]);
  least = leastOf("images");
  try {
    const [answer, headers] = await find(request("images", 0, PAGE, least), mine.signal);
    if (!current()) return;
    attempts = 0;
    if (scrollY > 0 && !place) scrollTo(0, 0);
    draw(answer, headers);
    await goBack(current);
    if (!current()) return;
    const captions = await said;
    if (current()) drawCaptions(captions);
  } catch (error) {
    if (current()) { searched = null; failed(error, $("state"), attempt); }
  } finally {
    clearTimeout(ghost);
    if (current()) done();
  }
}

/* To where one was before a reload or in an earlier entry of the history: as many images, and as far down. */
async function goBack(current) {
  if (!place) return;
  for (let had = -1; current() && had < results.length && results.length < place.count;) {
    had = results.length;
    await more();
  }
  if (current()) scrollTo(0, place.y);
  place = null;
}

function more() {
  if (nextOffset === null || !running) return loading;
  if (loading) return loading;
  const page = nextPage().finally(() => { if (loading === page) loading = null; });
  return (loading = page);
}

async function nextPage() {
  const mine = running, offset = nextOffset;
  busy(true);
  try {
    const [answer] = await find(request("images", offset, PAGE, least), mine.signal);
    if (running !== mine) return;
    attempts = 0;
    $("tail").replaceChildren();
    append(answer, offset);
    announce();
    watch();
  } catch (error) {
    if (running !== mine || mine.signal.aborted) return;
    $("more").hidden = true;
    failed(error, $("tail"), more);
  } finally {
    if (running === mine) done();
  }
}

/* Behind the images that are near enough, those that are only the nearest. The address keeps that they are shown. */
function showRest() {
  [query.far, least, nextOffset, rest] = [true, undefined, rest, null];
  searched = wording();
  remember("replace");
  $("rest").replaceChildren();
  $("state").replaceChildren();
  return more();
}

function failed(error, where, again) {
  if (where === $("state")) {
    $("captions").hidden = true;
    $("timing").replaceChildren();
    if (!WAITS.has(error.status)) clearResults();
  }
  grid.classList.toggle("dim", where === $("state"));
  const retry = () => { clearInterval(retryTimer); where.replaceChildren(); return again(); };
  if (error.status === 401) {
    const enter = () => askForKey(error.message, info ? retry : begin);
    state(where, "key", "This service asks for a key", [wordsFor(error.message)], [["Enter the key", enter, "full"]]);
    enter();
    return;
  }
  if (WAITS.has(error.status)) {
    const limited = error.status === 429;
    let left = Math.max(1, limited ? error.retryAfter : Math.min(LONGEST_WAIT_S, Math.max(error.retryAfter, 2 ** attempts++)));
    const seconds = el("span", {}, plural(left, "second"));
    clearInterval(retryTimer);
    retryTimer = setInterval(() => {
      left -= 1;
      if (left <= 0) retry();
      else seconds.textContent = plural(left, "second");
    }, 1000);
    const title = limited ? "You have reached the limit" : /starting/.test(error.message) ? "The service is starting" : "The service is busy";
    state(where, "clock", title,
      ["Your search is kept. It is tried again by itself in ", seconds, "."], [["Try now", retry, "full"]]);
    say(`${title}; your search is tried again by itself.`);
  } else if (error.status >= 400 && error.status < 500) {
    const [title, words, ...actions] = refused(error);
    state(where, "alert", title, [words], [...actions, ["Start over", startOver, actions.length ? "line" : "full"], ["Try again", retry, "line"]], error.message);
    say(`${title}. ${words}`);
  } else {
    const slow = error.status === 504;
    state(where, "alert", slow ? "That took too long" : error.status ? "The service failed" : "No connection to the service",
      [slow ? "The service has much to do; try again in a moment." : error.status ? "That is not because of your search. Try again in a moment." : "Check that the service runs and that you are online, then try again."],
      [["Try again", retry, "full"]], error.status ? error.message : "");
    say("The search failed. There is a button to try again.");
  }
}

/* A refusal is written for programs. What it means to a visitor: a title, a sentence and what to do, by what the words name. */
function refused({ status, message }) {
  const without = (kind) => () => change(() => { query.parts = query.parts.filter((part) => part.kind !== kind); });
  const own = query.parts.some((part) => part.kind === "upload") && /^queries\.\d+\.image\b/.test(message);
  if (status === 413 || (own && /pixels/.test(message))) return ["Your image is too large", "Make it smaller, or choose another one.", ["Search without it", without("upload"), "full"]];
  if (own) return ["Your image cannot be read", "The file is damaged, or of a kind that is not read here. JPEG, PNG and WebP always are.", ["Search without it", without("upload"), "full"]];
  if (/^there is no image /.test(message)) return ["An image of this search is gone", "The collection no longer has it.", ["Search without it", without("image_id"), "full"]];
  if (/^(where|sort)\b/.test(message)) return ["A filter does not fit this collection", "The link may be of another collection, or an older one.", ["Clear filters", () => { query.sort = null; unfilter(); }, "full"]];
  if (/^queries: must have at most/.test(message)) return ["The search has too many parts", `There is room for ${MOST_PARTS}, words that a minus takes away included. Remove some.`];
  if (/cancel each other out/.test(message)) return ["The parts of the search cancel each other out", "Change a weight, or remove a part."];
  if (status === 403) return ["Your key does not allow this", "The operator of the service can give you one that does."];
  return ["This search does not work", "Change or remove a part of it."];
}
