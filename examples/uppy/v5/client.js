// @uppy/aws-s3 5 with a bearer token. It sends `headers` with every call to the
// gateway, so the gateway may be on another origin than the page.
import AwsS3 from '@uppy/aws-s3'
import Uppy from '@uppy/core'
import GoldenRetriever from '@uppy/golden-retriever'

export function makeUppy({ base, token, multipartFrom, restore }) {
  const headers = () => ({ authorization: `Bearer ${token()}` })
  const uppy = new Uppy({ id: 'v5', autoProceed: true })
    .use(AwsS3, {
      endpoint: base, // it adds /s3/... itself
      headers: headers(),
      shouldUseMultipart: (file) => file.size >= multipartFrom,
      limit: 4,
    })
    .use(GoldenRetriever, restore)
  // A token lives an hour: uploads go on with the newest one.
  const renew = () => uppy.getPlugin('AwsS3Multipart').setOptions({ headers: headers() })
  return { uppy, renew }
}
