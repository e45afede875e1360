// What a CRM is told of a delivery, and whom it is about.

// The texts of an activity or a task that stands for a piece, and whether it is finished.
export const subject = (delivery) => `Mail piece: ${delivery.label}`
export const note = (delivery) => `Mail piece ${delivery.piece_id} of ${delivery.campaign_name ?? 'a campaign'}`
export const isFinished = (delivery) => ['ProcessedForDelivery', 'ReturnedToSender'].includes(delivery.status)

// Groups deliveries by record (key undefined: by none), because a call may contain each record only once.  The latest
// delivery of a record is sent, and its result applies to all of them.  Returns a map from
// the key to that delivery and the positions of all.
export function byRecord(deliveries, keyOf) {
  const records = new Map()
  for (const [n, delivery] of deliveries.entries()) {
    const key = keyOf(delivery, n)
    if (key === undefined) continue
    const record = records.get(key)
    if (!record) records.set(key, { delivery, positions: [n] })
    else {
      record.positions.push(n)
      if (new Date(delivery.occurred_at) >= new Date(record.delivery.occurred_at)) record.delivery = delivery
    }
  }
  return records
}

// Returns the error for a delivery whose recipient does not exist in the target.
export const noRecipient = (delivery, reason) => Object.assign(new Error(`piece ${delivery.piece_id}: ${reason}`), { dead: true })
