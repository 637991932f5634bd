// Drives examples/uppy in Chromium, as a user would, and says on standard output
// what the page said: one line of JSON for each step. Its argument is a JSON
// object: see uppy_test.go.
import { createRequire } from 'node:module'
import { join } from 'node:path'

const task = JSON.parse(process.argv[2])
const { chromium } = createRequire(join(task.playwright, 'x.js'))('playwright-core')
const say = (step, facts = {}) => console.log(JSON.stringify({ step, ...facts }))

const browser = await chromium.launch({
  executablePath: task.chromium,
  headless: true,
  chromiumSandbox: false,
  args: ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
})
let context, page
const calls = [] // every request of the page, but for what it is made of

// Each step is at a browser of its own, which knows nothing of the ones before.
async function begin() {
  await context?.close()
  context = await browser.newContext({ viewport: { width: 900, height: 700 } })
  context.setDefaultTimeout(60_000)
  page = await context.newPage()
  calls.length = 0
  page.on('request', (request) => {
    if (['fetch', 'xhr'].includes(request.resourceType())) calls.push({ method: request.method(), url: request.url() })
  })
  page.on('pageerror', (error) => say('pageerror', { text: String(error) }))
}

const row = (name) => page.locator('li', { has: page.locator('.name', { hasText: name }) })
const reach = (name, state) => row(name).and(page.locator(`[data-state="${state}"]`)).waitFor()
const text = (name) => row(name).locator('.state').textContent()
const shoot = async (name) => {
  if (task.shots) await page.screenshot({ fullPage: true, path: join(task.shots, `${task.client}-${name}.png`) })
}
const open = (query = '') => page.goto(`${task.url}/?client=${task.client}${query}`)
async function signIn(credential) {
  await page.locator('#credential').fill(credential)
  await page.getByRole('button', { name: 'Use it' }).click()
  await page.locator('#signed-in', { hasText: /./ }).waitFor()
}
const choose = (...files) => page.locator('#files').setInputFiles(files)

// hold keeps the parts from that number on from the store, and gives what lets
// them go. Those before it arrive whole: versitygw 1.8.0 takes a part that breaks
// off for one that has ended, and fills it up with zeros.
async function hold(part) {
  let free = false
  const held = []
  const parts = (url) => Number(url.searchParams.get('partNumber') ?? 0) >= part
  await page.route(parts, (route) => {
    if (route.request().method() !== 'PUT' || free) return route.continue()
    held.push(route)
  })
  return async () => {
    free = true
    // The page has given them up.
    await Promise.all(held.map((route) => route.abort().catch(() => {})))
    await page.unroute(parts)
  }
}
const reachPercent = (percent) =>
  page.waitForFunction((percent) => [...document.querySelectorAll('li progress')].at(-1)?.value >= percent, percent)
const partsSent = () => calls.filter((call) => call.method === 'PUT' && call.url.includes('partNumber=')).length

const steps = {
  async upload() {
    await open()
    await signIn(task.credential)
    const letGo = await hold(11)
    await choose(task.files.tiny, task.files.small, task.files.large)
    await row('large').waitFor()
    await shoot('uploading')
    for (const name of ['tiny', 'small']) await reach(name, 'ready')
    await reachPercent(41) // ten of 24 parts
    await row('large').getByRole('button', { name: 'Pause' }).click()
    await reach('large', 'paused')
    await letGo()
    await row('large').getByRole('button', { name: 'Resume' }).click()
    await reach('large', 'ready')
    await shoot('ready')
    say('upload')
  },
  // Nobody tells the gateway that the object is there.
  async unconfirmed() {
    await open('&confirm=no')
    await signIn(task.credential)
    await choose(task.files.tiny, task.files.large)
    await reach('tiny', 'uploaded')
    await reach('large', 'uploaded')
    say('unconfirmed', { parts: partsSent() })
  },
  async resume() {
    await open()
    await signIn(task.credential)
    const letGo = await hold(14)
    await choose(task.files.large)
    await reachPercent(54) // thirteen of 24
    await row('large').getByRole('button', { name: 'Pause' }).click()
    await reach('large', 'paused')
    await shoot('paused')
    await letGo()
    // GoldenRetriever writes what it knows a moment later: what it must have is
    // the multipart upload.
    await page.waitForFunction(storedUpload, task.client)
    await page.reload()
    await page.locator('#restored').waitFor()
    await row('large').waitFor()
    await shoot('restored')
    const reloaded = partsSent()
    await page.getByRole('button', { name: 'Continue' }).click()
    await reach('large', 'ready')
    await shoot('resumed')
    say('resume', { parts: partsSent() - reloaded })
  },
  async abort() {
    await open()
    await signIn(task.credential)
    const letGo = await hold(9)
    await choose(task.files.large)
    await reachPercent(33)
    const gone = page.waitForResponse((response) => response.request().method() === 'DELETE')
    await row('large').getByRole('button', { name: 'Cancel' }).click()
    const status = (await gone).status()
    await row('large').waitFor({ state: 'detached' })
    await letGo()
    await shoot('aborted')
    say('abort', { status })
  },
  async refused() {
    await open()
    await signIn('not.a.token')
    await choose(task.files.tiny, task.files.large)
    await reach('tiny', 'failed')
    await reach('large', 'failed')
    await shoot('refused')
    say('refused', { tiny: await text('tiny'), large: await text('large') })
  },
}

// Whether the browser's stores hold the multipart upload's id.
async function storedUpload(client) {
  if (client === 'v5') return Object.values(localStorage).some((value) => value.includes('"uploadId"'))
  const db = await new Promise((resolve, reject) => {
    const request = indexedDB.open('uppy-blobs')
    request.onsuccess = () => resolve(request.result)
    request.onerror = reject
  })
  try {
    const all = await new Promise((resolve, reject) => {
      const request = db.transaction('metadata').objectStore('metadata').getAll()
      request.onsuccess = () => resolve(request.result)
      request.onerror = reject
    })
    return JSON.stringify(all).includes('"uploadId"')
  } finally {
    db.close()
  }
}

try {
  for (const name of task.steps) {
    await begin()
    await steps[name]()
  }
} catch (error) {
  await shoot('broken').catch(() => {})
  say('broken', { text: String(error), page: await page.locator('main').innerText().catch(() => '') })
  process.exitCode = 1
} finally {
  await browser.close()
}
