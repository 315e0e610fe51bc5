/* Images leave: at once from the page, and from the collection when there was time to undo it. */

const gone = new Set();
let pending = null;

function remove(ids) {
  settle();
  ids.forEach((id) => gone.add(id));
  pending = { ids, timer: setTimeout(settle, UNDO_MS), before: results };
  redraw(results.filter(isThere));
  toast(`${plural(ids.length, "image")} removed.`, ["Undo", undo]);
}

function undo() {
  const mine = pending;
  if (!mine) return;
  pending = null;
  clearTimeout(mine.timer);
  mine.ids.forEach((id) => gone.delete(id));
  if (mine.before.length) redraw(mine.before);
  else home();
}

/* The time to undo is over, or the page is left: the removal is sent. */
async function settle() {
  const mine = pending;
  if (!mine) return;
  pending = null;
  clearTimeout(mine.timer);
  $("toast").hidden = true;
  const left = new Set(mine.ids);
  let why = "";
  try {
    for (let at = 0; at < mine.ids.length; at += MOST_CHANGES) {
      const some = mine.ids.slice(at, at + MOST_CHANGES);
      const [answer] = await ask("changes", { body: { changes: some.map((id) => ({ op: "delete", image_id: id })) }, keepalive: true });
      answer.results.forEach(({ status, error }, i) => { if (status < 300 || status === 404) left.delete(some[i]); else why = error.detail; });
      noteChange(answer.sequence);
    }
  } catch (error) {
    why = error.message;
  }
  const removed = mine.ids.length - left.size;
  const fewer = mine.before.filter(({ image_id }) => mine.ids.includes(image_id) && !left.has(image_id)).length;
  if (nextOffset !== null) nextOffset = Math.max(0, nextOffset - fewer);
  if (rest !== null) rest = Math.max(0, rest - fewer);
  if (info) { info.images -= removed; describe(); }
  left.forEach((id) => gone.delete(id));
  if (left.size) { redraw(mine.before.filter(isThere)); toast(`${plural(left.size, "image")} could not be removed: ${sentence(why)}`); }
}

/* What is read from now on has this change, in whatever process the service answers; so has the thumbnail of a new image. */
function noteChange(sequence, id) {
  seen = Math.max(seen, sequence);
  if (id) changedAt.set(id, sequence);
}

/* The same images again, after one was changed or left. */
function redraw(images) {
  if (isHome()) return home();
  results = images;
  grid.hidden = !results.length;
  grid.replaceChildren(...tiles());
  announce();
}

$("remove").addEventListener("click", () => {
  const id = shown;
  dialog.close();
  remove([id]);
});
addEventListener("pagehide", settle);
