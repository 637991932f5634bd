// A client of sidegate's upload and download routes, with Foundation alone
// (iOS 16, macOS 13 or later). The paths are those of ../policy.yaml: yours may
// differ.
//
// The file never passes through the gateway. It signs a URL; the file goes to
// the object store by that URL, with exactly the headers that the gateway named;
// then the gateway looks at what landed. What is sent again is sent with the
// same Idempotency-Key, so that a lost answer never makes a second upload.

import CryptoKit
import Foundation

/// What the gateway answers to presign_upload.
struct Ticket: Codable, Sendable {
    let key: String
    let putUrl: URL
    let session: String
    let headers: [String: String]
    let expiresAt: Date

    /// The request that sends the file, which is its body. Nothing may be added
    /// to these headers but what URLSession adds by itself.
    var request: URLRequest {
        var request = URLRequest(url: putUrl)
        request.httpMethod = "PUT"
        request.allHTTPHeaderFields = headers
        return request
    }
}

/// What to ask presign_upload with.
struct UploadRequest: Codable, Sendable {
    let contentType: String
    let size: Int
    let checksumSha256: String

    init(_ content: Data, contentType: String) {
        self.contentType = contentType
        size = content.count
        checksumSha256 = Data(SHA256.hash(data: content)).base64EncodedString()
    }
}

struct Confirmed: Decodable, Sendable {
    let key: String
    let status: String
    let size: Int
    let contentType: String
}

/// The gateway's refusal (RFC 9457). Programs go by `code`; `detail` is for people.
struct Problem: Error, Sendable {
    let status: Int
    let code: String
    let detail: String
    let requestID: String
    let retryAfter: TimeInterval?

    init(_ response: HTTPURLResponse, _ body: Data) {
        struct Document: Decodable {
            var code: String?
            var detail: String?
            var request_id: String?
        }
        // Not JSON: it is not the gateway's own, but of a proxy in front, say.
        let document = try? JSONDecoder().decode(Document.self, from: body)
        status = response.statusCode
        code = document?.code ?? ""
        detail = document?.detail ?? ""
        requestID = document?.request_id ?? ""
        retryAfter = response.retryAfter
    }
}

/// The object store's refusal. Its body may quote the URL: it is not shown.
struct StoreError: Error, Sendable {
    let status: Int
}

struct Gateway: Sendable {
    let url: URL
    /// The caller's ID token, fresh whenever it is asked: with Firebase
    /// `{ try await Auth.auth().currentUser!.getIDToken() }`.
    let token: @Sendable () async throws -> String

    private static let attempts = 5
    /// A Retry-After beyond it is for the caller to decide.
    private static let longestWait: TimeInterval = 60

    func presign(_ ask: UploadRequest, idempotencyKey: UUID) async throws -> Ticket {
        try decode(await call("POST", "/v1/uploads/presign", JSONEncoder().encode(ask), idempotencyKey))
    }

    /// Asks the gateway to look at what landed. Asking again gives the same answer.
    func confirm(session: String) async throws -> Confirmed {
        try decode(await call("POST", "/v1/uploads/\(session)/confirm"))
    }

    /// Downloads the object to a temporary file, which is the caller's to move.
    func download(key: String) async throws -> URL {
        struct Answer: Decodable { let getUrl: URL }
        let answer: Answer = try decode(await call("GET", "/v1/files/\(quote(key))/download"))
        let (file, response) = try await URLSession.shared.download(from: answer.getUrl)
        guard let response = response as? HTTPURLResponse, response.statusCode == 200 else {
            throw StoreError(status: (response as? HTTPURLResponse)?.statusCode ?? 0)
        }
        return file
    }

    func delete(key: String) async throws {
        _ = try await call("DELETE", "/v1/files/\(quote(key))")
    }

    /// The keys of one's own objects, page after page.
    func keys() async throws -> [String] {
        struct Page: Decodable {
            struct Item: Decodable { let key: String }
            let objects: [Item]
            let nextPageToken: String?
        }
        var all: [String] = []
        var token: String?
        repeat {
            let query = token.map { "?pageToken=" + quote($0) } ?? ""
            let page: Page = try decode(await call("GET", "/v1/files" + query))
            all += page.objects.map(\.key)
            token = page.nextPageToken
        } while token != nil
        return all
    }

    /// A request to the gateway: the body of its answer, or a Problem.
    private func call(_ method: String, _ path: String, _ body: Data? = nil, _ idempotencyKey: UUID? = nil) async throws -> Data {
        guard let target = URL(string: path, relativeTo: url) else { throw URLError(.badURL) }
        var request = URLRequest(url: target)
        request.httpMethod = method
        request.httpBody = body
        if body != nil {
            request.setValue("application/json", forHTTPHeaderField: "Content-Type")
        }
        if let idempotencyKey {
            request.setValue("\"\(idempotencyKey.uuidString)\"", forHTTPHeaderField: "Idempotency-Key")
        }
        var attempt = 0
        while true {
            attempt += 1
            var wait = TimeInterval.random(in: 0...min(20, 0.5 * pow(2, Double(attempt)))) // not all clients at the same moment
            request.setValue("Bearer " + (try await token()), forHTTPHeaderField: "Authorization")
            do {
                let (answer, response) = try await URLSession.shared.data(for: request)
                guard let response = response as? HTTPURLResponse else { throw URLError(.badServerResponse) }
                if response.statusCode == 200 || response.statusCode == 204 {
                    return answer
                }
                wait = response.retryAfter ?? wait
                if !response.mayChange || attempt == Self.attempts || wait > Self.longestWait {
                    throw Problem(response, answer)
                }
            } catch let error as URLError {
                if attempt == Self.attempts || error.code == .cancelled { throw error }
            }
            try await Task.sleep(nanoseconds: UInt64(wait * 1_000_000_000))
        }
    }

    private func decode<Answer: Decodable>(_ body: Data) throws -> Answer {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .iso8601
        return try decoder.decode(Answer.self, from: body)
    }

    /// For a path, whose slashes stay, or a query's value.
    private func quote(_ text: String) -> String {
        let unreserved = CharacterSet(charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")
        return text.addingPercentEncoding(withAllowedCharacters: unreserved)!
    }
}

extension HTTPURLResponse {
    /// The seconds that the answer asks to wait. (Its other form, a date, nobody here sends.)
    var retryAfter: TimeInterval? {
        value(forHTTPHeaderField: "Retry-After").flatMap(UInt32.init).map(TimeInterval.init)
    }

    /// The same request can have another answer later.
    var mayChange: Bool { [429, 500, 502, 503, 504].contains(statusCode) }
}
