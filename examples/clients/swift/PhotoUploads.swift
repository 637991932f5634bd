// Photos on their way to the object store, also while the app is not running:
// the system sends them (a background URLSession). What is known of each is in a
// file, written before it is acted on, so that the app can be ended at any time.

import Foundation

/// One photo on its way. Its `id` is the Idempotency-Key: a presign that is asked
/// for again, after a crash or a lost answer, gives the same session and URL.
struct PendingPhoto: Codable, Identifiable, Sendable {
    var id = UUID()
    let photo: UUID // names the two files
    let ask: UploadRequest
    var ticket: Ticket?
    var sent = false // the store has it, the gateway does not know yet
    var attempts = 0
}

@MainActor
final class PhotoUploads: NSObject, ObservableObject {
    @Published private(set) var pending: [PendingPhoto] = []
    /// The keys of what is ready: the app's own backend learns them from it, or by the gateway's webhook.
    @Published private(set) var ready: [String] = []
    @Published private(set) var failures: [String] = []

    /// Kept by the app delegate's handleEventsForBackgroundURLSession, and called when all events are in.
    var eventsHandled: (() -> Void)?

    private let gateway: Gateway
    private let folder = URL.applicationSupportDirectory.appending(path: "photo-uploads", directoryHint: .isDirectory)
    private var background: URLSession!
    private static let attempts = 20

    init(gateway: Gateway) {
        self.gateway = gateway
        super.init()
        let configuration = URLSessionConfiguration.background(withIdentifier: "photo-uploads")
        configuration.sessionSendsLaunchEvents = true
        configuration.isDiscretionary = false
        background = URLSession(configuration: configuration, delegate: self, delegateQueue: .main)
    }

    /// Takes up what was under way when the app last ended. To be called at each start.
    func resume() async throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let records = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .filter { $0.pathExtension == "json" }
        pending = try records.map { try JSONDecoder().decode(PendingPhoto.self, from: Data(contentsOf: $0)) }
        let underWay = Set(await background.allTasks.compactMap(\.taskDescription))
        for photo in pending where !underWay.contains(photo.id.uuidString) {
            await advance(photo)
        }
    }

    func add(_ content: Data, contentType: String) async throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let photo = PendingPhoto(photo: UUID(), ask: UploadRequest(content, contentType: contentType))
        try content.write(to: contentFile(photo), options: .atomic)
        try save(photo)
        await advance(photo)
    }

    /// Does the next step: ask for a URL, have the system send, confirm.
    private func advance(_ photo: PendingPhoto, after wait: TimeInterval = 0) async {
        var photo = photo
        do {
            if photo.sent, let ticket = photo.ticket {
                ready.append(try await gateway.confirm(session: ticket.session).key)
                forget(photo)
                return
            }
            if photo.ticket.map({ $0.expiresAt < .now.addingTimeInterval(60) }) ?? false {
                photo.startOver()
                try save(photo) // before it is used
            }
            if photo.ticket == nil {
                photo.ticket = try await gateway.presign(photo.ask, idempotencyKey: photo.id)
                try save(photo)
            }
            let task = background.uploadTask(with: photo.ticket!.request, fromFile: contentFile(photo))
            task.taskDescription = photo.id.uuidString
            task.earliestBeginDate = .now.addingTimeInterval(wait)
            task.resume()
        } catch let problem as Problem where problem.status == 410 && !photo.sent {
            await again(photo) // the URL of this key is over: it was asked for long ago
        } catch let problem as Problem where problem.status < 500 && problem.status != 429 && problem.status != 401 {
            failures.append(problem.detail) // the answer will be the same: not allowed, too large, another file than was signed
            forget(photo)
        } catch {
            // No network, nobody signed in, a gateway that is away: resume() goes on from here.
        }
    }

    /// Begins again with a new session. The old one expires by itself.
    private func again(_ photo: PendingPhoto) async {
        var photo = photo
        photo.startOver()
        photo.attempts += 1
        guard photo.attempts < Self.attempts, (try? save(photo)) != nil else { return give(up: photo) }
        await advance(photo)
    }

    /// The system has sent the photo, or could not.
    private func ended(_ id: String, status: Int, retryAfter: TimeInterval?) async {
        guard var photo = pending.first(where: { $0.id.uuidString == id }) else { return }
        switch status {
        case 200, 201, 204,
             412: // an object is there already, by a try of ours whose answer was lost
            photo.sent = true
            guard (try? save(photo)) != nil else { return } // resume() sends it again, and the store says 412
            await advance(photo)
        case 403: // the URL is over: the phone was off the net
            await again(photo)
        case 0, 409, 429, 500...: // 0: no answer
            photo.attempts += 1
            guard photo.attempts < Self.attempts, (try? save(photo)) != nil else { return give(up: photo) }
            await advance(photo, after: retryAfter ?? .random(in: 0...min(600, pow(2, Double(photo.attempts)))))
        default:
            give(up: photo)
        }
    }

    private func give(up photo: PendingPhoto) {
        failures.append("a photo could not be sent")
        forget(photo)
    }

    private func contentFile(_ photo: PendingPhoto) -> URL { folder.appending(path: photo.photo.uuidString) }
    private func recordFile(_ photo: PendingPhoto) -> URL { contentFile(photo).appendingPathExtension("json") }

    private func save(_ photo: PendingPhoto) throws {
        // It holds a signed URL, and is to be read while the phone is locked.
        try JSONEncoder().encode(photo).write(to: recordFile(photo), options: [.atomic, .completeFileProtectionUntilFirstUserAuthentication])
        if let at = pending.firstIndex(where: { $0.photo == photo.photo }) {
            pending[at] = photo
        } else {
            pending.append(photo)
        }
    }

    private func forget(_ photo: PendingPhoto) {
        pending.removeAll { $0.photo == photo.photo }
        try? FileManager.default.removeItem(at: recordFile(photo))
        try? FileManager.default.removeItem(at: contentFile(photo))
    }
}

extension PendingPhoto {
    mutating func startOver() {
        id = UUID()
        ticket = nil
        sent = false
    }
}

extension PhotoUploads: URLSessionTaskDelegate {
    nonisolated func urlSession(_ session: URLSession, task: URLSessionTask, didCompleteWithError error: Error?) {
        let response = error == nil ? task.response as? HTTPURLResponse : nil
        let (id, status, retryAfter) = (task.taskDescription ?? "", response?.statusCode ?? 0, response?.retryAfter)
        Task { await ended(id, status: status, retryAfter: retryAfter) }
    }

    nonisolated func urlSessionDidFinishEvents(forBackgroundURLSession session: URLSession) {
        Task { @MainActor in
            eventsHandled?()
            eventsHandled = nil
        }
    }
}
