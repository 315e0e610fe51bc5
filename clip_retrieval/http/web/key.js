/* The way in */

function askForKey(why, then) {
  withKey = then;
  $("entry-why").textContent = key ? "This key is not accepted here; it may have ended." : wordsFor(why);
  keepKey("");
  if (!entry.open) entry.showModal();
  $("key").focus();
}

/* What the service says is for programs, but for one thing: that it has no keys at all. */
function wordsFor(why) {
  return /the service has none/.test(why) ? `The service has no keys yet: ${sentence(why)}` : "Whoever runs it gives keys to those who may search here.";
}

function keepKey(given) {
  key = given;
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
  $("forget").hidden = !key;
}

$("entry-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey($("key").value.trim());
  $("key").value = "";
  entry.close();
  if (key) withKey();
});
$("entry-shut").addEventListener("click", () => entry.close());
$("forget").addEventListener("click", () => { keepKey(""); location.reload(); });
