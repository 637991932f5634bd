// @uppy/aws-s3 6. Its Companion mode can send no header of ours, so it is for
// pages of the gateway's own origin, with a session cookie. With a bearer token
// there is signRequest, which is ours to write.
import AwsS3 from '@uppy/aws-s3'
import Uppy from '@uppy/core'
import GoldenRetriever from '@uppy/golden-retriever'

export function makeUppy({ base, mode, token, multipartFrom, restore }) {
  const uppy = new Uppy({ id: `v6-${mode}`, autoProceed: true })
    .use(AwsS3, {
      shouldUseMultipart: (file) => file.size >= multipartFrom,
      ...(mode === 'cookie' ? { companionEndpoint: base } : signing(base, token)),
    })
    .use(GoldenRetriever, restore)
  return { uppy, renew() {} } // signRequest asks for the token each time
}

function signing(base, token) {
  // What begins an upload is signed for its type and size, of which Uppy says
  // only the key that it proposes. The gateway makes another one.
  const proposed = new Map()
  return {
    generateObjectKey(file) {
      const key = crypto.randomUUID()
      proposed.set(key, { contentType: file.type || 'application/octet-stream', size: file.size })
      return key
    },
    async signRequest(request) {
      const answer = await fetch(`${base}/s3/sign`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token()}`, 'content-type': 'application/json' },
        body: JSON.stringify({ ...request, ...(request.uploadId ? {} : proposed.get(request.key)) }),
      })
      const said = await answer.json()
      if (!answer.ok) throw new Error(said.message)
      return said
    },
  }
}
