// Whom a delivery is about, for targets that call an API with many records at once.

// Group the deliveries by record, because an API accepts each record only once in a call:
// the last delivery has the status that the record ends with.  Returns a map from the key
// to the delivery to send and the positions of all deliveries that it stands for.
export function byRecord(deliveries, keyOf) {
  const records = new Map()
  for (const [n, delivery] of deliveries.entries()) {
    const key = keyOf(delivery)
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

// A delivery that will never succeed, because the target has no such recipient.
export const noRecipient = (delivery, reason) => Object.assign(new Error(`piece ${delivery.piece_id}: ${reason}`), { dead: true })
