// Makes dist/ of page/ and of the two bundles.
import { cpSync, rmSync } from 'node:fs'
import { build } from 'esbuild'

rmSync('dist', { recursive: true, force: true })
cpSync('page', 'dist', { recursive: true })
await build({
  entryPoints: { v5: 'v5/client.js', v6: 'v6/client.js' },
  outdir: 'dist',
  bundle: true,
  format: 'esm',
  minify: true,
  target: 'es2022',
  logLevel: 'warning',
})
