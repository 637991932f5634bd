// The page: it knows Uppy's core and nothing of S3. Which client is used is in
// the page's query.
const query = new URLSearchParams(location.search)
const client = ['v5', 'v6-cookie', 'v6-sign'].includes(query.get('client')) ? query.get('client') : 'v5'
const [version, mode = 'token'] = client.split('-')
const base = `${location.origin}/uppy`
const byCookie = mode === 'cookie'
const element = (id) => document.getElementById(id)

// A real page has the token from its sign-in (Firebase's getIdToken()), and the
// cookie, which no script can read, from its server.
const token = () => sessionStorage.getItem('token') ?? ''

const { makeUppy } = await import(`./${version}.js`)
const MiB = 1024 * 1024
const { uppy, renew } = makeUppy({
  base, mode, token,
  multipartFrom: 100 * MiB, // Uppy's own default
  // Files are kept in the browser, so that an upload survives a reload.
  restore: { indexedDB: { maxFileSize: 1024 * MiB, maxTotalSize: 2048 * MiB } },
})

document.querySelector(`nav a[href="?client=${client}"]`).setAttribute('aria-current', 'page')
element('credential-label').textContent = byCookie ? 'Session cookie' : 'ID token'
if (!byCookie && token()) signedIn()
element('sign-in').addEventListener('submit', (event) => {
  event.preventDefault()
  const value = element('credential').value.trim()
  if (byCookie) document.cookie = `__session=${value}; path=/; samesite=strict`
  else sessionStorage.setItem('token', value)
  element('credential').value = ''
  renew()
  signedIn()
})
function signedIn() {
  element('signed-in').textContent = byCookie ? 'The cookie is set.' : 'The token is used from now on.'
}

element('files').addEventListener('change', (event) => {
  for (const file of event.target.files) {
    try {
      uppy.addFile({ name: file.name, type: file.type, data: file })
    } catch (error) {
      uppy.info(error, 'error')
    }
  }
  event.target.value = ''
})

// An upload that a reload interrupted waits for the user's word.
uppy.on('restored', () => {
  element('restored').hidden = uppy.getFiles().length === 0
  show()
})
element('continue').addEventListener('click', () => {
  element('restored').hidden = true
  uppy.emit('restore-confirmed')
})
element('discard').addEventListener('click', () => {
  element('restored').hidden = true
  uppy.cancelAll()
})

// The gateway looks at what landed as soon as it is told; a page that does not
// tell it finds the upload ready some time after its URL is over.
uppy.on('upload-success', async (file, response) => {
  if (query.get('confirm') === 'no') return state(file, 'uploaded', 'Uploaded')
  state(file, 'confirming', 'Checking')
  try {
    const answer = await fetch(`${base}/s3/confirm?${new URLSearchParams({ key: response.body.key })}`, {
      method: 'POST',
      headers: byCookie ? {} : { authorization: `Bearer ${token()}` },
    })
    const said = await answer.json()
    if (!answer.ok) throw new Error(said.message)
    state(file, said.status, 'Ready')
  } catch (error) {
    state(file, 'failed', error.message)
  }
})
uppy.on('upload-error', (file, error) => state(file, 'failed', error.message))
uppy.on('upload-start', (files) => files.forEach((file) => state(file, 'uploading')))
uppy.on('upload-retry', (file) => state(file, 'uploading'))
uppy.on('state-update', () => show())

// What the list says of each file beside what Uppy's state says.
const states = new Map()
function state(file, name, text = '') {
  if (file) states.set(file.id, { name, text })
  show()
}

const rows = new Map()
function show() {
  const files = uppy.getFiles()
  for (const [id, row] of rows) {
    if (!files.some((file) => file.id === id)) {
      row.remove()
      rows.delete(id)
    }
  }
  for (const file of files) {
    if (!rows.has(file.id)) rows.set(file.id, addRow(file))
    const row = rows.get(file.id)
    const { name, text } = states.get(file.id) ?? { name: 'waiting', text: '' }
    const percent = file.progress.percentage ?? 0
    row.dataset.state = file.isPaused && name === 'uploading' ? 'paused' : name
    row.querySelector('.state').textContent = text || { waiting: 'Waiting', uploading: `${percent} %`, paused: `Paused at ${percent} %` }[row.dataset.state]
    row.querySelector('progress').value = percent
    const running = row.dataset.state === 'uploading' || row.dataset.state === 'paused'
    const pause = row.querySelector('.pause')
    pause.hidden = !running
    pause.textContent = row.dataset.state === 'paused' ? 'Resume' : 'Pause'
    row.querySelector('.retry').hidden = row.dataset.state !== 'failed' || file.progress.uploadComplete
    row.querySelector('.cancel').textContent = running || row.dataset.state === 'waiting' ? 'Cancel' : 'Remove'
  }
}

function sizeOf(bytes) {
  if (bytes >= MiB) return `${(bytes / MiB).toFixed(1)} MiB`
  return bytes === 1 ? '1 byte' : `${bytes} bytes`
}

function addRow(file) {
  const row = document.createElement('li')
  row.innerHTML = `<div class="top"><span class="name"></span><span class="size"></span></div>
    <progress max="100" value="0"></progress>
    <div class="bottom"><span class="state" role="status"></span>
    <button class="pause quiet" hidden>Pause</button><button class="retry" hidden>Retry</button><button class="cancel quiet">Cancel</button></div>`
  row.querySelector('.name').textContent = file.name
  row.querySelector('.size').textContent = sizeOf(file.size)
  row.querySelector('.pause').addEventListener('click', () => uppy.pauseResume(file.id))
  row.querySelector('.retry').addEventListener('click', () => uppy.retryUpload(file.id))
  row.querySelector('.cancel').addEventListener('click', () => uppy.removeFile(file.id))
  element('list').append(row)
  return row
}
