// Pick a photo, see it on its way.

import PhotosUI
import SwiftUI

struct PhotosView: View {
    @ObservedObject var uploads: PhotoUploads
    @State private var picked: [PhotosPickerItem] = []
    @State private var failure: String?

    var body: some View {
        List {
            PhotosPicker("Add photos", selection: $picked, matching: .images, preferredItemEncoding: .current)
            if let failure {
                Text(failure).foregroundStyle(.red)
            }
            ForEach(uploads.failures, id: \.self) { Text($0).foregroundStyle(.red) }
            ForEach(uploads.pending) { photo in
                Text(photo.sent ? "Checking…" : "Sending…")
            }
            ForEach(uploads.ready, id: \.self) { Text($0) }
        }
        .task {
            do { try await uploads.resume() } catch { failure = error.localizedDescription }
        }
        .onChange(of: picked) { items in
            picked = []
            Task { for item in items { await send(item) } }
        }
    }

    private func send(_ item: PhotosPickerItem) async {
        do {
            guard let content = try await item.loadTransferable(type: Data.self) else { return }
            let type = item.supportedContentTypes.first { $0.conforms(to: .image) }?.preferredMIMEType
            try await uploads.add(content, contentType: type ?? "image/jpeg")
        } catch {
            failure = error.localizedDescription
        }
    }
}
