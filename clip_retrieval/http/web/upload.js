/* An image of the visitor's own */

const UNREADABLE = "That cannot be read: it is a folder, or the file was moved or removed.";

async function take(file) {
  if (!file) return;
  busy(true);
  const blob = await smaller(file);
  const key = `upload-${Date.now()}`;
  let base64;
  try {
    base64 = await new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(blob);
    });
  } catch {
    busy(false);
    toast(UNREADABLE);
    return;
  }
  uploads.set(key, { base64, url: URL.createObjectURL(blob) });
  busy(false);
  change(() => { query.parts = [{ kind: "upload", value: key, weight: 1 }, ...query.parts.filter((part) => part.kind !== "upload")]; });
}

/* The model looks at a few hundred pixels a side: a large photograph is made smaller before it is sent. */
async function smaller(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const scale = SENT_SIDE / Math.max(bitmap.width, bitmap.height);
    if (scale >= 1 && file.size <= SENT_BYTES) return file;
    const canvas = el("canvas", { width: Math.max(1, Math.round(bitmap.width * Math.min(1, scale))), height: Math.max(1, Math.round(bitmap.height * Math.min(1, scale))) });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve) => canvas.toBlob((made) => resolve(made ?? file), "image/jpeg", 0.92));
  } catch {
    return file; // this browser cannot read the format; the service may, or says that it cannot
  }
}
