// Makes `client.js`, the one file that servers and pages take, out of `parts/`:
//
//     node build.mjs          with esbuild installed here, or where ESBUILD_FROM names a package.json
//
// Names stay as they are, so that a debugger can be read. The first line carries a digest of the
// parts, by which `cargo test` sees a file that is out of date.

import { readFile, readdir, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const { build } = createRequire(process.env.ESBUILD_FROM ?? import.meta.url)('esbuild');
const parts = join(here, 'parts');
const { version } = JSON.parse(await readFile(join(here, 'package.json'), 'utf8'));

const made = await build({
  entryPoints: [join(parts, 'index.js')],
  bundle: true,
  format: 'esm',
  target: 'es2022',
  minifyWhitespace: true,
  minifySyntax: true,
  write: false,
});
const head = `// Tidegate ${version}, the client, made by build.mjs of parts ${await digest()}\n`;
await writeFile(process.argv[2] ?? join(here, 'client.js'), head + made.outputFiles[0].text);

/** FNV-1a over all parts in the order of their names. */
async function digest() {
  let value = 0xcbf29ce484222325n;
  for (const name of (await readdir(parts)).sort()) {
    for (const byte of await readFile(join(parts, name))) {
      value = BigInt.asUintN(64, (value ^ BigInt(byte)) * 0x100000001b3n);
    }
  }
  return value.toString(16).padStart(16, '0');
}
