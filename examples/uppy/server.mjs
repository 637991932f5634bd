// Serves dist/ to the gateway, which is in front: PORT, or 3000.
import { createReadStream } from 'node:fs'
import { createServer } from 'node:http'

const files = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/assets/page.js': ['page.js', 'text/javascript'],
  '/assets/page.css': ['page.css', 'text/css'],
  '/assets/v5.js': ['v5.js', 'text/javascript'],
  '/assets/v6.js': ['v6.js', 'text/javascript'],
}

createServer((request, response) => {
  const file = files[new URL(request.url, 'http://page').pathname]
  if (!file) {
    response.writeHead(404).end()
    return
  }
  response.writeHead(200, { 'Content-Type': file[1], 'Cache-Control': 'no-cache' })
  createReadStream(new URL(`dist/${file[0]}`, import.meta.url)).pipe(response)
}).listen(Number(process.env.PORT ?? 3000), '127.0.0.1')
