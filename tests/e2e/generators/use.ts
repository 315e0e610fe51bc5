// Uses the generated client as a person would: node compiled/use.js URL IMAGE
import { openAsBlob } from 'node:fs';
import {
  addImage,
  createEmbeddings,
  deleteImage,
  fields,
  image,
  search,
  searchCaptions,
  searchImages,
  thumbnail,
} from './client';
import { client } from './client/client.gen';

async function main(url: string, path: string): Promise<void> {
  client.setConfig({ baseUrl: url, auth: 'any key' });
  const file = await openAsBlob(path);

  const found = await searchImages({ body: { text: 'a red square', k: 3 }, throwOnError: true });
  const first = found.data.results[0];
  if (!first) throw new Error('nothing is found');

  const captions = await searchCaptions({ body: { file }, query: { k: 2 }, throwOnError: true });
  const mixed = await search({
    body: {
      queries: [{ text: 'red' }, { image_id: first.image_id, weight: 0.5 }],
      where: { split: { in: ['train', 'val', 'test'] } },
    },
    throwOnError: true,
  });
  const vectors = await createEmbeddings({ body: { input: ['red', 'blue'] }, throwOnError: true });
  const small = await thumbnail({ path: { size: 'small', image_id: first.image_id }, throwOnError: true });
  const names = await fields({ throwOnError: true });

  const added = await addImage({ body: { file, image_id: 'new', captions: ['a new square'] }, throwOnError: true });
  const record = await image({ path: { image_id: 'new' }, throwOnError: true });
  await deleteImage({ path: { image_id: 'new' }, throwOnError: true });
  const gone = await image({ path: { image_id: 'new' } });

  console.log(
    JSON.stringify({
      first: first.image_id,
      caption: captions.data.results[0]?.caption,
      mixed: mixed.data.results.length,
      vectors: vectors.data.data.length,
      thumbnail: (small.data as Blob).size > 0,
      fields: names.data.fields.map((field) => field.name),
      added: added.data.created,
      captions: record.data.captions,
      gone: gone.error?.detail,
    }),
  );
}

main(process.argv[2] ?? '', process.argv[3] ?? '').catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
