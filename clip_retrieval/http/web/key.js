/* The way in */

/* `words`, if there are any, say what the key is for; without them the one that there is was not accepted. */
function askForKey(why, then, words) {
  withKey = then;
  $("entry-why").textContent = words ?? (key ? "This key is not accepted here; it may have ended." : wordsFor(why));
  if (!words) keepKey(""); // one that allows searching is kept until there is a better one
  if (!entry.open) entry.showModal();
  $("key").focus();
}

/* What the service says is for programs, but for one thing: that it has no keys at all. */
function wordsFor(why) {
  return /the service has none/.test(why) ? `The service has no keys yet: ${sentence(why)}` : "The operator of the service gives keys to those who may search here.";
}

function keepKey(given) {
  key = given;
  if (key) inTab?.setItem(KEY, key);
  else inTab?.removeItem(KEY);
  $("forget").hidden = !key;
}

$("entry-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("key").value.trim();
  if (!/^[!-~]*$/.test(given)) { // no header can have it, so no request could be sent with it
    $("entry-why").textContent = "This has a space or a letter that no key has. Copy the key again.";
    $("key").select();
    return;
  }
  keepKey(given);
  $("key").value = "";
  entry.close();
  if (key) withKey();
});
$("entry-shut").addEventListener("click", () => entry.close());
$("forget").addEventListener("click", () => { keepKey(""); location.reload(); });
