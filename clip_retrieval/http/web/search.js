/* Searching */

function stop() {
  running?.abort();
  running = null;
  clearTimeout(timer);
  timer = 0;
  clearInterval(retryTimer);
  loadingMore = false;
}

async function search() {
  stop();
  attempts = 0;
  await attempt();
}

const wording = () => JSON.stringify([query.text, query.weight, query.parts, query.where, query.dedupe]);

async function attempt() {
  stop();
  searched = null;
  if (!asked().length) return home();
  searched = wording();
  const mine = (running = new AbortController());
  const current = () => running === mine && !mine.signal.aborted;
  busy(true);
  $("hero").hidden = $("browse").hidden = true;
  $("found").hidden = false;
  $("tail").replaceChildren();
  const ghost = setTimeout(() => current() && !results.length && ghosts(), GHOST_MS);
  const images = query.parts.some((part) => part.kind !== "text");
  const said = images && info?.captions !== 0
    ? ask("search", { body: request("captions", 0, CAPTIONS), signal: mine.signal }).then(([answer]) => answer.results, () => [])
    : Promise.resolve([]);
  try {
    const [answer, headers] = await ask("search", { body: request("images", 0, PAGE), signal: mine.signal });
    if (!current()) return;
    attempts = 0;
    if (scrollY > 0) scrollTo(0, 0);
    draw(answer, headers);
    const captions = await said;
    if (current()) drawCaptions(captions);
  } catch (error) {
    if (current()) { searched = null; failed(error, $("state"), attempt); }
  } finally {
    clearTimeout(ghost);
    if (current()) done();
  }
}

async function more() {
  if (nextOffset === null || loadingMore || !running) return;
  loadingMore = true;
  const mine = running;
  busy(true);
  try {
    const [answer] = await ask("search", { body: request("images", nextOffset, PAGE), signal: mine.signal });
    if (running !== mine) return;
    attempts = 0;
    $("tail").replaceChildren();
    append(answer);
    announce();
    loadingMore = false;
    watch();
  } catch (error) {
    if (running !== mine || mine.signal.aborted) return;
    $("more").hidden = true;
    failed(error, $("tail"), () => { loadingMore = false; return more(); });
  } finally {
    if (running === mine) done();
  }
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
    state(where, "alert", "This search does not work", [`${sentence(error.message)} Change or clear a part of it.`],
      [["Start over", startOver, "full"], ["Try again", retry, "line"]]);
    say(`This search does not work: ${error.message}`);
  } else {
    const slow = error.status === 504;
    state(where, "alert", slow ? "That took too long" : error.status ? "The service failed" : "No connection to the service",
      [slow ? "The service has much to do; try again in a moment." : error.status ? `${sentence(error.message)} Try again in a moment.` : "Check that the service runs and that you are online, then try again."],
      [["Try again", retry, "full"]]);
    say("The search failed. There is a button to try again.");
  }
}
